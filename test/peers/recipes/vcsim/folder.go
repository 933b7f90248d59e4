package main

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/vmware/govmomi/vim25/types"
)

// folder is /folder/PATH?dcPath=…&dsName=…: files of a datastore. Unlike the simulator's own it wants a session, and gives
// the bytes of a disk only where a host would: of the base of a snapshot, or of a machine that is off.
func (f *front) folder(w http.ResponseWriter, r *http.Request, known bool) {
	if !known {
		w.Header().Set("WWW-Authenticate", `Basic realm="VMware HTTP server"`)
		http.Error(w, "Unauthorized", http.StatusUnauthorized)
		return
	}
	path := strings.TrimPrefix(r.URL.Path, "/folder/")
	file := "[" + r.URL.Query().Get("dsName") + "] " + strings.TrimSuffix(path, "-flat.vmdk") + ".vmdk"
	if !strings.HasSuffix(path, "-flat.vmdk") {
		f.inner.ServeHTTP(w, r)
		return
	}
	content, status := f.readable(file)
	if status != http.StatusOK {
		http.Error(w, http.StatusText(status), status)
		return
	}
	opened := openFile(content)
	defer opened.Close()
	http.ServeContent(w, r, filepath.Base(path), time.Time{}, opened)
}

// readable finds the file that holds the bytes of that base disk.
func (f *front) readable(file string) (string, int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, d := range f.disks {
		if d.base != file {
			continue
		}
		for _, p := range f.points {
			if copied := p.disk(d.key); !p.Gone && copied != nil && copied.File == file {
				return copied.Path, http.StatusOK
			}
		}
		if vm := f.machine(d.vm); vm.Runtime.PowerState == types.VirtualMachinePowerStatePoweredOff {
			return d.live, http.StatusOK
		}
		// What a host answers for a file that a running machine has locked.
		return "", http.StatusInternalServerError
	}
	if _, err := os.Stat(f.path(file)); err == nil {
		return "", http.StatusInternalServerError
	}
	return "", http.StatusNotFound
}
