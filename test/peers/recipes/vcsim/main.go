// A vCenter (or a single ESXi host) for the tests: govmomi's simulator, and before it a front of our own that adds what
// the simulator lacks and what only a fault shows. Disks are real files, which a test writes to while it is read.
//
// Added: QueryChangedDiskAreas and change ids, a copy of every disk for every snapshot, names of delta disks, consolidation,
// sessions that are needed for everything and can end, /folder for what a real host would let be read, and, over a unix
// socket, all that a test wants to happen (control.go). It is our double of what only VMware has: it proves nothing about a real one.
//
//	vcsim SETTINGS.json
package main

import (
	"crypto/tls"
	"encoding/json"
	"log"
	"net/http"
	"net/url"
	"os"
	"path/filepath"

	"github.com/vmware/govmomi/simulator"
)

// Settings come in a file, for a command line shows a password to everybody.
type Settings struct {
	Listen   string `json:"listen"`
	CertFile string `json:"certFile"`
	KeyFile  string `json:"keyFile"`
	User     string `json:"user"`
	Password string `json:"password"`
	// Folder gets live/ (what the guests write), points/ (a copy for each snapshot) and the control socket.
	Folder        string `json:"folder"`
	Esx           bool   `json:"esx"`
	Machines      int    `json:"machines"`
	CapacityBytes int64  `json:"capacityBytes"`
}

func main() {
	var settings Settings
	text, err := os.ReadFile(os.Args[1])
	check(err)
	check(json.Unmarshal(text, &settings))
	model := simulator.VPX()
	if settings.Esx {
		model = simulator.ESX()
	}
	model.Machine = settings.Machines
	check(model.Create())
	certificate, err := tls.LoadX509KeyPair(settings.CertFile, settings.KeyFile)
	check(err)
	model.Service.TLS = &tls.Config{Certificates: []tls.Certificate{certificate}}
	model.Service.Listen = &url.URL{Host: settings.Listen, User: url.UserPassword(settings.User, settings.Password)}
	for _, name := range []string{"live", "points"} {
		check(os.MkdirAll(filepath.Join(settings.Folder, name), 0o700))
	}

	model.Service.RegisterEndpoints = true // for tags.go
	front := newFront(model, settings)
	server := model.Service.NewServer()
	front.inner, front.dropConnections = server.Config.Handler, server.CloseClientConnections
	server.Config.Handler = front
	check(http.Serve(listenUnix(filepath.Join(settings.Folder, "control")), front.control()))
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
