package main

import (
	"bytes"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/google/uuid"
	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/types"
)

const blockBytes = 64 * 1024

// disk is what a guest writes to, and the record of its changed blocks.
type disk struct {
	vm       types.ManagedObjectReference
	key      int32
	label    string
	base     string // "[datastore] folder/name.vmdk", whatever snapshots there are
	live     string // the file that a test writes to
	capacity int64
	// tracking begins with the first snapshot after it was switched on: until then there are no change ids.
	tracking bool
	uuid     string
	sequence int
	// changedAt holds, for each block, at which sequence its change was noticed.
	changedAt []int
	lastCopy  string
}

func diskID(vm types.ManagedObjectReference, key int32) string {
	return vm.Value + "-" + strconv.Itoa(int(key))
}

func eachDisk(config *types.VirtualMachineConfigInfo, do func(*types.VirtualDisk, *types.VirtualDiskFlatVer2BackingInfo)) {
	for _, device := range config.Hardware.Device {
		if virtual, ok := device.(*types.VirtualDisk); ok {
			if backing, ok := virtual.Backing.(*types.VirtualDiskFlatVer2BackingInfo); ok {
				do(virtual, backing)
			}
		}
	}
}

// adopt makes a file for each disk that has none yet, and forgets those that are gone. A disk that somebody uploaded is a file already.
func (f *front) adopt(vm *simulator.VirtualMachine, capacity int64) {
	present := map[string]bool{}
	eachDisk(vm.Config, func(device *types.VirtualDisk, backing *types.VirtualDiskFlatVer2BackingInfo) {
		id := diskID(vm.Self, device.Key)
		present[id] = true
		if f.disks[id] != nil {
			return
		}
		d := &disk{vm: vm.Self, key: device.Key, base: backing.FileName, live: filepath.Join(f.settings.Folder, "live", id+".img")}
		d.label = place(vm.Config, device)
		f.disks[id] = d
		uploaded := f.path(strings.TrimSuffix(backing.FileName, ".vmdk") + "-flat.vmdk")
		if info, err := os.Stat(uploaded); err == nil && info.Size() > 0 {
			d.live = uploaded
			f.resize(d, device, info.Size())
			return
		}
		check(os.WriteFile(d.live, nil, 0o600))
		f.resize(d, device, capacity)
		f.describe(backing.FileName, "vmfs", fmt.Sprintf("RW %d VMFS \"%s\"", d.capacity/512, flatName(backing.FileName)))
	})
	for id, d := range f.disks {
		if d.vm == vm.Self && !present[id] {
			delete(f.disks, id)
		}
	}
}

// place is where the disk is attached, as scsi0:1.
func place(config *types.VirtualMachineConfigInfo, disk *types.VirtualDisk) string {
	for _, device := range config.Hardware.Device {
		controller, ok := device.(types.BaseVirtualSCSIController)
		if ok && device.GetVirtualDevice().Key == disk.ControllerKey && disk.UnitNumber != nil {
			return fmt.Sprintf("scsi%d:%d", controller.GetVirtualSCSIController().BusNumber, *disk.UnitNumber)
		}
	}
	return fmt.Sprintf("disk-%d", disk.Key)
}

func (f *front) resize(d *disk, device *types.VirtualDisk, capacity int64) {
	check(os.Truncate(d.live, capacity))
	d.capacity, device.CapacityInBytes, device.CapacityInKB = capacity, capacity, capacity/1024
	blocks := int((capacity + blockBytes - 1) / blockBytes)
	for len(d.changedAt) < blocks {
		d.changedAt = append(d.changedAt, d.sequence+1)
	}
	d.changedAt = d.changedAt[:blocks]
}

// flatName is the file beside a descriptor that holds the bytes.
func flatName(file string) string {
	return strings.Replace(filepath.Base(file), ".vmdk", "-flat.vmdk", 1)
}

// path of a "[datastore] folder/name" on this host.
func (f *front) path(file string) string {
	name, relative, _ := strings.Cut(strings.TrimPrefix(file, "["), "] ")
	for _, object := range f.model.Map().All("Datastore") {
		if store := object.(*simulator.Datastore); store.Name == name {
			return filepath.Join(store.Info.GetDatastoreInfo().Url, relative)
		}
	}
	return filepath.Join(f.settings.Folder, "no-such-datastore", relative)
}

// describe writes a descriptor as it lies on a datastore.
func (f *front) describe(file, kind, extent string) {
	text := fmt.Sprintf("# Disk DescriptorFile\nversion=1\nencoding=\"UTF-8\"\nCID=fffffffe\nparentCID=ffffffff\ncreateType=\"%s\"\n\n"+
		"# Extent description\n%s\n\n# The Disk Data Base\n#DDB\n\nddb.adapterType = \"lsilogic\"\n", kind, extent)
	if err := os.WriteFile(f.path(file), []byte(text), 0o600); err != nil {
		log.Print(err)
	}
}

// freeze copies the disk and notes what changed since the copy before. Returns the change id of this moment, if it has one.
func (d *disk) freeze(enabled bool, copyTo string) string {
	check(os.MkdirAll(filepath.Dir(copyTo), 0o700))
	check(copyFile(d.live, copyTo))
	if !enabled {
		d.tracking = false
	}
	active := enabled && d.tracking
	if enabled && !d.tracking {
		d.tracking = true
		d.resetTracking()
	}
	if active {
		d.sequence++
		d.noteChanges(copyTo)
	}
	d.lastCopy = copyTo
	if !active {
		return ""
	}
	return fmt.Sprintf("%s/%d", d.uuid, d.sequence)
}

// resetTracking forgets everything that changed: older change ids mean nothing any more.
func (d *disk) resetTracking() {
	raw := uuid.New()
	hex := fmt.Sprintf("% x", raw[:])
	d.uuid, d.sequence = hex[:23]+"-"+hex[24:], 0
	clear(d.changedAt)
}

func (d *disk) noteChanges(copied string) {
	now, before := openFile(copied), openFile(d.lastCopy)
	defer now.Close()
	defer before.Close()
	a, b := make([]byte, blockBytes), make([]byte, blockBytes)
	for block := range d.changedAt {
		clear(a)
		clear(b)
		_, _ = now.ReadAt(a, int64(block)*blockBytes)
		_, _ = before.ReadAt(b, int64(block)*blockBytes)
		if !bytes.Equal(a, b) {
			d.changedAt[block] = d.sequence
		}
	}
}

func openFile(path string) *os.File {
	file, err := os.Open(path)
	check(err)
	return file
}

// copyFile leaves holes where the file has nothing but zeroes.
func copyFile(from, to string) error {
	source := openFile(from)
	defer source.Close()
	target, err := os.Create(to)
	if err != nil {
		return err
	}
	defer target.Close()
	zeroes, buffer := make([]byte, blockBytes), make([]byte, blockBytes)
	for offset := int64(0); ; offset += blockBytes {
		count, err := source.ReadAt(buffer, offset)
		if !bytes.Equal(buffer[:count], zeroes[:count]) {
			if _, err := target.WriteAt(buffer[:count], offset); err != nil {
				return err
			}
		}
		if err == io.EOF {
			return target.Truncate(offset + int64(count))
		}
		if err != nil {
			return err
		}
	}
}

func (f *front) queryChangedDiskAreas(w http.ResponseWriter, r *types.QueryChangedDiskAreas) {
	f.mu.Lock()
	defer f.mu.Unlock()
	changed, end, fault := f.changedAreas(r)
	if fault != nil {
		writeFault(w, fault)
		return
	}
	var areas bytes.Buffer
	for _, area := range changed {
		fmt.Fprintf(&areas, "<changedArea><start>%d</start><length>%d</length></changedArea>", area.Start, area.Length)
	}
	writeEnvelope(w, http.StatusOK, fmt.Sprintf(`<QueryChangedDiskAreasResponse xmlns="urn:vim25"><returnval><startOffset>%d</startOffset>`+
		`<length>%d</length>%s</returnval></QueryChangedDiskAreasResponse>`, r.StartOffset, end-r.StartOffset, areas.String()))
}

// changedAreas also says where the part of the disk ends that they are about: an answer need not reach the end.
func (f *front) changedAreas(r *types.QueryChangedDiskAreas) ([]types.DiskChangeExtent, int64, types.BaseMethodFault) {
	d := f.disks[diskID(r.This, r.DeviceKey)]
	if d == nil {
		return nil, 0, &types.InvalidArgument{InvalidProperty: "deviceKey"}
	}
	if r.Snapshot == nil || f.pointOf(*r.Snapshot) == nil {
		return nil, 0, &types.ManagedObjectNotFound{Obj: r.This}
	}
	copied := f.pointOf(*r.Snapshot).disk(r.DeviceKey)
	if copied == nil || r.StartOffset < 0 || r.StartOffset >= copied.Capacity {
		return nil, 0, &types.InvalidArgument{InvalidProperty: "startOffset"}
	}
	isChanged, fault := d.since(r.ChangeId, copied)
	if fault != nil {
		return nil, 0, fault
	}
	end := copied.Capacity
	if f.behaviour.WindowBytes > 0 {
		end = min(end, r.StartOffset+f.behaviour.WindowBytes)
	}
	var areas []types.DiskChangeExtent
	over, omitted := f.behaviour.OverReported, f.behaviour.OmittedAreas
	for start := r.StartOffset; start < end; {
		block := int(start / blockBytes)
		stop := min(int64(block+1)*blockBytes, end)
		isListed := isChanged(block)
		if !isListed && over > 0 {
			over--
			isListed = true
		}
		last := len(areas) - 1
		switch {
		case !isListed:
		case last >= 0 && areas[last].Start+areas[last].Length == start:
			areas[last].Length += stop - start
		case omitted > 0:
			omitted--
		case len(areas) == f.behaviour.ExtentsMax:
			return areas, start, nil
		default:
			areas = append(areas, types.DiskChangeExtent{Start: start, Length: stop - start})
		}
		start = stop
	}
	return areas, end, nil
}

// since tells which blocks changed after that change id; with "*", which hold anything.
func (d *disk) since(changeID string, copied *pointDisk) (func(block int) bool, types.BaseMethodFault) {
	if changeID == "*" {
		content, err := os.ReadFile(copied.Path)
		check(err)
		zeroes := make([]byte, blockBytes)
		return func(block int) bool {
			part := content[block*blockBytes : min((block+1)*blockBytes, len(content))]
			return !bytes.Equal(part, zeroes[:len(part)])
		}, nil
	}
	id, text, _ := strings.Cut(changeID, "/")
	sequence, err := strconv.Atoi(text)
	if err != nil {
		return nil, &types.InvalidArgument{InvalidProperty: "changeId"}
	}
	if id != d.uuid || !strings.HasPrefix(copied.ChangeID, id+"/") || sequence < 1 || sequence > d.sequence {
		return nil, &types.FileFault{File: d.base}
	}
	return func(block int) bool { return block >= len(d.changedAt) || d.changedAt[block] > sequence }, nil
}
