package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/types"
)

// copiesKept of snapshots that are gone: a test compares what it restored with them.
const copiesKept = 6

// point is what the disks held when a snapshot was made: points/MOREF/FOLDER/NAME.vmdk, where the stand-in for VDDK looks.
type point struct {
	Snapshot string       `json:"snapshot"`
	Machine  string       `json:"machine"`
	Name     string       `json:"name"`
	Gone     bool         `json:"gone"`
	Disks    []*pointDisk `json:"disks"`
}

type pointDisk struct {
	Key      int32  `json:"key"`
	Label    string `json:"label"`
	File     string `json:"file"`
	Path     string `json:"path"`
	ChangeID string `json:"changeId"`
	Capacity int64  `json:"capacityBytes"`
}

func (p *point) disk(key int32) *pointDisk {
	for _, d := range p.Disks {
		if d.Key == key {
			return d
		}
	}
	return nil
}

// pointOf a snapshot that is still there.
func (f *front) pointOf(snapshot types.ManagedObjectReference) *point {
	for _, p := range f.points {
		if p.Snapshot == snapshot.Value && !p.Gone {
			return p
		}
	}
	return nil
}

func (f *front) createSnapshot(ctx *simulator.Context, request *types.CreateSnapshot_Task) (types.AnyType, types.BaseMethodFault) {
	f.mu.Lock()
	defer f.mu.Unlock()
	vm := f.machine(request.This)
	f.adopt(vm, f.settings.CapacityBytes)
	asked := *request
	asked.Quiesce = request.Quiesce && !f.behaviour.ToolsMissing
	p := &point{Machine: vm.Name, Name: request.Name}
	folder := filepath.Join(f.settings.Folder, "points", fmt.Sprintf("taking-%d", len(f.points)))
	enabled := vm.Config.ChangeTrackingEnabled != nil && *vm.Config.ChangeTrackingEnabled
	eachDisk(vm.Config, func(device *types.VirtualDisk, backing *types.VirtualDiskFlatVer2BackingInfo) {
		d := f.disks[diskID(vm.Self, device.Key)]
		path := filepath.Join(folder, relative(backing.FileName))
		backing.ChangeId = d.freeze(enabled, path)
		p.Disks = append(p.Disks, &pointDisk{device.Key, d.label, backing.FileName, path, backing.ChangeId, d.capacity})
	})
	// The simulator copies the configuration into the snapshot: file names and change ids of this moment with it.
	f.wait(vm.CreateSnapshotTask(ctx, &asked).(*methods.CreateSnapshot_TaskBody).Res.Returnval)
	snapshot := *vm.Snapshot.CurrentSnapshot
	p.Snapshot = snapshot.Value
	f.settle(p, folder, filepath.Join(f.settings.Folder, "points", snapshot.Value))
	f.points = append(f.points, p)
	f.forgetOld()
	f.writeToDeltas(vm)
	return snapshot, nil
}

// settle moves the copies to where they are looked for.
func (f *front) settle(p *point, from, to string) {
	check(os.Rename(from, to))
	for _, d := range p.Disks {
		d.Path = to + strings.TrimPrefix(d.Path, from)
		for _, current := range f.disks {
			if current.lastCopy != "" && strings.HasPrefix(current.lastCopy, from+"/") {
				current.lastCopy = to + strings.TrimPrefix(current.lastCopy, from)
			}
		}
	}
}

// writeToDeltas: from now on the guest writes to a file of its own, and the base stays as it is.
func (f *front) writeToDeltas(vm *simulator.VirtualMachine) {
	eachDisk(vm.Config, func(device *types.VirtualDisk, backing *types.VirtualDiskFlatVer2BackingInfo) {
		parent := *backing
		d := f.disks[diskID(vm.Self, device.Key)]
		for n := 1; ; n++ {
			name := strings.Replace(d.base, ".vmdk", fmt.Sprintf("-%06d.vmdk", n), 1)
			if !f.isInUse(name) {
				backing.FileName = name
				break
			}
		}
		backing.ChangeId, backing.Parent = "", &parent
		f.describe(backing.FileName, "seSparse", fmt.Sprintf("RW %d SESPARSE \"%s\"", d.capacity/512,
			strings.Replace(filepath.Base(backing.FileName), ".vmdk", "-sesparse.vmdk", 1)))
	})
}

func (f *front) isInUse(file string) bool {
	for _, p := range f.points {
		for _, d := range p.Disks {
			if !p.Gone && d.File == file {
				return true
			}
		}
	}
	return false
}

func (f *front) removeSnapshot(ctx *simulator.Context, request *types.RemoveSnapshot_Task) types.BaseMethodFault {
	f.mu.Lock()
	defer f.mu.Unlock()
	p := f.pointOf(request.This)
	if p == nil {
		return &types.ManagedObjectNotFound{Obj: request.This}
	}
	folder := filepath.Join(f.settings.Folder, "points", p.Snapshot)
	// A host can't take a file away from somebody who reads it.
	if reader := readerOf(folder); reader != "" {
		return &types.FileLocked{FileFault: types.FileFault{File: reader}}
	}
	snapshot := f.model.Map().Get(request.This).(*simulator.VirtualMachineSnapshot)
	vm := f.machine(snapshot.Vm)
	f.wait(snapshot.RemoveSnapshotTask(ctx, request).(*methods.RemoveSnapshot_TaskBody).Res.Returnval)
	p.Gone = true
	gone := filepath.Join(f.settings.Folder, "points", "gone-"+p.Snapshot)
	f.settle(p, folder, gone)
	if vm.Snapshot == nil {
		eachDisk(vm.Config, func(device *types.VirtualDisk, backing *types.VirtualDiskFlatVer2BackingInfo) {
			backing.FileName, backing.Parent = f.disks[diskID(vm.Self, device.Key)].base, nil
		})
	}
	setConsolidationNeeded(vm, f.behaviour.NeedsConsolidation)
	return nil
}

// wait for a task of the simulator's own that is part of ours.
func (f *front) wait(task types.ManagedObjectReference) {
	f.model.Map().Get(task).(*simulator.Task).Wait()
}

func setConsolidationNeeded(vm *simulator.VirtualMachine, needed bool) {
	vm.Runtime.ConsolidationNeeded = needed
}

// forgetOld removes the oldest copies of snapshots that are gone, but none that the record of changes compares with.
func (f *front) forgetOld() {
	kept, left := 0, f.points[:0]
	inUse := map[string]bool{}
	for _, d := range f.disks {
		inUse[d.lastCopy] = true
	}
	for i := len(f.points) - 1; i >= 0; i-- {
		if f.points[i].Gone {
			kept++
		}
		needed := false
		for _, d := range f.points[i].Disks {
			needed = needed || inUse[d.Path]
		}
		if f.points[i].Gone && kept > copiesKept && !needed {
			check(os.RemoveAll(filepath.Join(f.settings.Folder, "points", "gone-"+f.points[i].Snapshot)))
			f.points[i] = nil
		}
	}
	for _, p := range f.points {
		if p != nil {
			left = append(left, p)
		}
	}
	f.points = left
}

// relative is a datastore's path without the datastore.
func relative(file string) string {
	_, path, _ := strings.Cut(file, "] ")
	return path
}

// readerOf says which file below the folder some process has open, or "".
func readerOf(folder string) string {
	links, _ := filepath.Glob("/proc/[0-9]*/fd/*")
	for _, link := range links {
		if target, err := os.Readlink(link); err == nil && strings.HasPrefix(target, folder+"/") {
			return target
		}
	}
	return ""
}
