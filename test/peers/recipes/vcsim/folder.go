package main

import (
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"syscall"
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
	if r.Method == http.MethodPut {
		f.upload(w, r)
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
	// A file that no machine has is handed out, and so is what was uploaded before a machine has it.
	flat := f.path(strings.TrimSuffix(file, ".vmdk") + "-flat.vmdk")
	if _, err := os.Stat(flat); err == nil {
		return flat, http.StatusOK
	}
	if _, err := os.Stat(f.path(file)); err == nil {
		return "", http.StatusInternalServerError
	}
	return "", http.StatusNotFound
}

// upload takes a file. Whoever is to be killed at it is killed half way.
func (f *front) upload(w http.ResponseWriter, r *http.Request) {
	kill, hurt := f.count("PUT"), f.take("PUT", "fault", "lose-answer")
	body := r.Body
	half := func() { r.Body = io.NopCloser(io.LimitReader(body, r.ContentLength/2)) }
	switch {
	case kill:
		half()
		f.inner.ServeHTTP(httptest.NewRecorder(), r)
		_ = syscall.Kill(f.killed, syscall.SIGKILL)
		hangUp(w)
	case hurt != nil && hurt.How == "fault":
		half()
		f.inner.ServeHTTP(httptest.NewRecorder(), r)
		http.Error(w, http.StatusText(http.StatusInsufficientStorage), http.StatusInsufficientStorage)
	case hurt != nil:
		f.inner.ServeHTTP(httptest.NewRecorder(), r)
		hangUp(w)
	default:
		f.inner.ServeHTTP(w, r)
	}
}
