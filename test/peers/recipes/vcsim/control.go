package main

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/types"
)

// What a test can make happen: POST /ACTION with JSON, over a unix socket.

// order is what any action may be told.
type order struct {
	Machine       string `json:"machine"`
	Disk          int32  `json:"disk"`
	Name          string `json:"name"`
	Category      string `json:"category"`
	CapacityBytes int64  `json:"capacityBytes"`
	DownMs        int64  `json:"downMs"`
	Pid           int    `json:"pid"`
	Nth           int    `json:"nth"`
}

func (f *front) control() http.Handler {
	mux := http.NewServeMux()
	action := func(name string, do func(body []byte, o order) (any, error)) {
		mux.HandleFunc("POST /"+name, func(w http.ResponseWriter, r *http.Request) {
			var body json.RawMessage
			var o order
			err := json.NewDecoder(r.Body).Decode(&body)
			if err == nil {
				err = json.Unmarshal(body, &o)
			}
			var result any
			if err == nil {
				result, err = do(body, o)
			}
			if err != nil {
				http.Error(w, err.Error(), http.StatusBadRequest)
				return
			}
			_ = json.NewEncoder(w).Encode(map[string]any{"result": result})
		})
	}
	action("disks", func(_ []byte, o order) (any, error) { return f.listDisks(o.Machine) })
	action("points", func(_ []byte, o order) (any, error) { return f.listPoints(o.Machine), nil })
	action("calls", func(_ []byte, _ order) (any, error) {
		f.mu.Lock()
		defer f.mu.Unlock()
		calls := f.seen
		f.seen = map[string]int{}
		return calls, nil
	})
	action("behave", func(body []byte, _ order) (any, error) { return nil, f.behave(body) })
	action("hurt", func(body []byte, _ order) (any, error) {
		hurt := rule{Times: 1}
		err := json.Unmarshal(body, &hurt)
		f.mu.Lock()
		defer f.mu.Unlock()
		f.rules = append(f.rules, &hurt)
		return nil, err
	})
	action("heal", func(_ []byte, _ order) (any, error) {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.rules = nil
		return nil, nil
	})
	action("kill-at", func(_ []byte, o order) (any, error) {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.killAt, f.killed = o.Nth, o.Pid
		return nil, nil
	})
	action("set-datastore", func(_ []byte, o order) (any, error) {
		for _, object := range f.model.Map().All("Datastore") {
			if store := object.(*simulator.Datastore); store.Name == o.Name {
				f.context().WithLock(store, func() {
					if o.CapacityBytes > 0 {
						store.Summary.FreeSpace = o.CapacityBytes
					}
					if o.Category != "" {
						store.Summary.Type = o.Category
					}
				})
			}
		}
		return nil, nil
	})
	action("tag", func(_ []byte, o order) (any, error) {
		vm, err := f.machineNamed(o.Machine)
		if err != nil {
			return nil, err
		}
		return nil, f.tag(vm.Self, o.Category, o.Name)
	})
	action("path-of", func(_ []byte, o order) (any, error) { return f.path(o.Name), nil })
	action("end-sessions", func(_ []byte, _ order) (any, error) {
		f.mu.Lock()
		defer f.mu.Unlock()
		clear(f.sessions)
		return nil, nil
	})
	action("restart", func(_ []byte, o order) (any, error) {
		return nil, f.restart(time.Duration(o.DownMs) * time.Millisecond)
	})
	action("reset-tracking", f.onMachine(func(_ *simulator.Context, vm *simulator.VirtualMachine, o order) (any, error) {
		f.mu.Lock()
		defer f.mu.Unlock()
		d := f.disks[diskID(vm.Self, o.Disk)]
		if d == nil {
			return nil, fmt.Errorf("%s has no disk %d", o.Machine, o.Disk)
		}
		d.resetTracking()
		return nil, nil
	}))
	action("resize-disk", f.onMachine(f.resizeDisk))
	action("add-disk", f.onMachine(f.addDisk))
	action("remove-disk", f.onMachine(f.removeDisk))
	action("add-snapshot", f.onMachine(func(ctx *simulator.Context, vm *simulator.VirtualMachine, o order) (any, error) {
		snapshot, fault := f.createSnapshot(ctx, &types.CreateSnapshot_Task{This: vm.Self, Name: o.Name})
		if fault != nil {
			return nil, fmt.Errorf("%T", fault)
		}
		return snapshot.(types.ManagedObjectReference).Value, nil
	}))
	action("remove-snapshot", f.onMachine(func(ctx *simulator.Context, _ *simulator.VirtualMachine, o order) (any, error) {
		ref := types.ManagedObjectReference{Type: "VirtualMachineSnapshot", Value: o.Name}
		if fault := f.removeSnapshot(ctx, &types.RemoveSnapshot_Task{This: ref}); fault != nil {
			return nil, fmt.Errorf("%T", fault)
		}
		return nil, nil
	}))
	return mux
}

// onMachine runs as a task would, so that it never meets one half way.
func (f *front) onMachine(do func(*simulator.Context, *simulator.VirtualMachine, order) (any, error)) func([]byte, order) (any, error) {
	return func(_ []byte, o order) (result any, err error) {
		vm, err := f.machineNamed(o.Machine)
		if err != nil {
			return nil, err
		}
		ctx := f.context()
		ctx.WithLock(vm, func() { result, err = do(ctx, vm, o) })
		return result, err
	}
}

func (f *front) behave(body []byte) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.behaviour = behaviour{ExtentsMax: 2000}
	err := json.Unmarshal(body, &f.behaviour)
	// Without the hand-off, a task that waits holds no lock: its state can be looked at.
	delays := map[string]int{"LockHandoff": 0}
	for _, task := range []string{"CreateSnapshot_Task", "RemoveSnapshot_Task", "ConsolidateVMDisks_Task"} {
		delays[task] = f.behaviour.TaskDelayMs
	}
	simulator.TaskDelay = simulator.DelayConfig{MethodDelay: delays}
	return err
}

// restart of the services: sessions and finished tasks are forgotten, machines and snapshots are not.
func (f *front) restart(down time.Duration) error {
	f.mu.Lock()
	f.downUntil = time.Now().Add(down)
	clear(f.sessions)
	f.mu.Unlock()
	f.dropConnections()
	ctx := f.context()
	manager := f.model.Map().Get(*f.model.ServiceContent.TaskManager).(*simulator.TaskManager)
	for _, ref := range manager.RecentTask {
		task, ok := f.model.Map().Get(ref).(*simulator.Task)
		if !ok {
			continue
		}
		ended := false
		ctx.WithLock(task, func() {
			ended = task.Info.State == types.TaskInfoStateSuccess || task.Info.State == types.TaskInfoStateError
		})
		if ended {
			f.model.Map().Remove(ctx, task.Self)
		}
	}
	for _, object := range f.model.Map().All("VirtualMachine") {
		vm := object.(*simulator.VirtualMachine)
		ctx.WithLock(vm, func() { vm.RecentTask = nil })
	}
	return nil
}

func (f *front) resizeDisk(_ *simulator.Context, vm *simulator.VirtualMachine, o order) (any, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	d := f.disks[diskID(vm.Self, o.Disk)]
	if d == nil || vm.Snapshot != nil {
		return nil, fmt.Errorf("%s has no disk %d, or has snapshots: such a disk can't be resized", o.Machine, o.Disk)
	}
	eachDisk(vm.Config, func(device *types.VirtualDisk, _ *types.VirtualDiskFlatVer2BackingInfo) {
		if device.Key == o.Disk {
			f.resize(d, device, o.CapacityBytes)
		}
	})
	return nil, nil
}

func (f *front) addDisk(ctx *simulator.Context, vm *simulator.VirtualMachine, o order) (any, error) {
	var like *types.VirtualDisk
	eachDisk(vm.Config, func(device *types.VirtualDisk, _ *types.VirtualDiskFlatVer2BackingInfo) { like = device })
	unit := int32(len(vm.Config.Hardware.Device) % 64)
	d := f.disks[diskID(vm.Self, like.Key)]
	device := &types.VirtualDisk{
		VirtualDevice: types.VirtualDevice{
			Key: -1, ControllerKey: like.ControllerKey, UnitNumber: &unit,
			Backing: &types.VirtualDiskFlatVer2BackingInfo{
				VirtualDeviceFileBackingInfo: types.VirtualDeviceFileBackingInfo{
					FileName: strings.Replace(d.base, ".vmdk", fmt.Sprintf("_%d.vmdk", time.Now().UnixNano()), 1),
				},
				DiskMode: string(types.VirtualDiskModePersistent),
			},
		},
		CapacityInBytes: o.CapacityBytes, CapacityInKB: o.CapacityBytes / 1024,
	}
	f.wait(reconfigure(ctx, vm, &types.VirtualDeviceConfigSpec{
		Operation: types.VirtualDeviceConfigSpecOperationAdd, FileOperation: types.VirtualDeviceConfigSpecFileOperationCreate, Device: device,
	}))
	f.mu.Lock()
	defer f.mu.Unlock()
	f.adopt(vm, o.CapacityBytes)
	return device.Key, nil
}

func (f *front) removeDisk(ctx *simulator.Context, vm *simulator.VirtualMachine, o order) (any, error) {
	var found *types.VirtualDisk
	eachDisk(vm.Config, func(device *types.VirtualDisk, _ *types.VirtualDiskFlatVer2BackingInfo) {
		if device.Key == o.Disk {
			found = device
		}
	})
	if found == nil {
		return nil, fmt.Errorf("%s has no disk %d", o.Machine, o.Disk)
	}
	f.wait(reconfigure(ctx, vm, &types.VirtualDeviceConfigSpec{Operation: types.VirtualDeviceConfigSpecOperationRemove, Device: found}))
	f.mu.Lock()
	defer f.mu.Unlock()
	f.adopt(vm, 0)
	return nil, nil
}

// liveDisk is a disk as a test sees it.
type liveDisk struct {
	Machine       string `json:"machine"`
	MachineRef    string `json:"machineRef"`
	Key           int32  `json:"key"`
	Label         string `json:"label"`
	File          string `json:"file"`
	Live          string `json:"live"`
	CapacityBytes int64  `json:"capacityBytes"`
}

func (f *front) listDisks(machine string) ([]liveDisk, error) {
	vm, err := f.machineNamed(machine)
	if err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.adopt(vm, f.settings.CapacityBytes)
	listed := []liveDisk{}
	eachDisk(vm.Config, func(device *types.VirtualDisk, backing *types.VirtualDiskFlatVer2BackingInfo) {
		d := f.disks[diskID(vm.Self, device.Key)]
		listed = append(listed, liveDisk{machine, vm.Self.Value, device.Key, d.label, backing.FileName, d.live, d.capacity})
	})
	return listed, nil
}

func (f *front) listPoints(machine string) []*point {
	f.mu.Lock()
	defer f.mu.Unlock()
	listed := []*point{}
	for _, p := range f.points {
		if p.Machine == machine {
			listed = append(listed, p)
		}
	}
	return listed
}

func listenUnix(path string) net.Listener {
	_ = os.MkdirAll(filepath.Dir(path), 0o700)
	listener, err := net.Listen("unix", path)
	check(err)
	return listener
}

func reconfigure(ctx *simulator.Context, vm *simulator.VirtualMachine, change *types.VirtualDeviceConfigSpec) types.ManagedObjectReference {
	spec := types.VirtualMachineConfigSpec{DeviceChange: []types.BaseVirtualDeviceConfigSpec{change}}
	return vm.ReconfigVMTask(ctx, &types.ReconfigVM_Task{This: vm.Self, Spec: spec}).(*methods.ReconfigVM_TaskBody).Res.Returnval
}
