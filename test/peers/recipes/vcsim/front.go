package main

import (
	"bytes"
	"encoding/xml"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"reflect"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"
)

const sessionCookie = "vmware_soap_session"

// What a vCenter answers to everybody.
var open = []string{"RetrieveServiceContent", "Login", "LoginByToken"}

// front takes the requests first: it answers those that the simulator can't, and passes on the others.
type front struct {
	model           *simulator.Model
	settings        Settings
	inner           http.Handler
	dropConnections func()

	mu        sync.Mutex
	sessions  map[string]bool
	rules     []*rule
	downUntil time.Time
	behaviour behaviour
	disks     map[string]*disk // by machine and key
	points    []*point         // one for each snapshot, oldest first
	seen      map[string]int   // calls by method
	killAt    int              // the nth call from now on after which killed is killed; 0: none
	killed    int
}

// behaviour stays until it is changed; rules (below) are used up.
type behaviour struct {
	// WindowBytes is what one answer of QueryChangedDiskAreas covers at most; 0: all that is left.
	WindowBytes int64 `json:"windowBytes"`
	ExtentsMax  int   `json:"extentsMax"`
	// OverReported blocks are reported as changed though they are not.
	OverReported int `json:"overReported"`
	// OmittedAreas are changed and not reported: a lie that only a comparison finds.
	OmittedAreas int `json:"omittedAreas"`
	// TaskDelayMs is how long a task about snapshots runs before it does anything.
	TaskDelayMs int `json:"taskDelayMs"`
	// ToolsMissing: quiesce is asked for, and silently not done.
	ToolsMissing bool `json:"toolsMissing"`
	// ClockAheadMs of the time that the server says it is.
	ClockAheadMs int64 `json:"clockAheadMs"`
	// Lacking: privileges that the account does not have.
	Lacking []string `json:"lacking"`
	// NeedsConsolidation: a removed snapshot leaves its files behind.
	NeedsConsolidation bool `json:"needsConsolidation"`
}

// rule hurts calls of one method.
type rule struct {
	Method string `json:"method"`
	// How: "fault" answers with it, "task" ends the task with it, "lose-answer" does what was asked and hangs up, "hang" never answers.
	How      string `json:"how"`
	Fault    string `json:"fault"`
	Property string `json:"property"`
	Skip     int    `json:"skip"`
	Times    int    `json:"times"`
}

func newFront(model *simulator.Model, settings Settings) *front {
	f := &front{
		model: model, settings: settings, sessions: map[string]bool{}, disks: map[string]*disk{}, seen: map[string]int{},
		behaviour: behaviour{ExtentsMax: 2000},
	}
	for _, object := range model.Map().All("VirtualMachine") {
		f.adopt(object.(*simulator.VirtualMachine), settings.CapacityBytes)
	}
	return f
}

// context is one for each call: the simulator's locks belong to a context.
func (f *front) context() *simulator.Context {
	copied := *f.model.Service.Context
	return &copied
}

func (f *front) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	down := time.Now().Before(f.downUntil)
	f.mu.Unlock()
	if down {
		hangUp(w)
		return
	}
	cookie, err := r.Cookie(sessionCookie)
	f.mu.Lock()
	known := err == nil && f.sessions[cookie.Value]
	f.mu.Unlock()
	switch {
	case strings.HasPrefix(r.URL.Path, "/folder/"):
		f.folder(w, r, known)
	case r.URL.Path == "/sdk" && r.Method == http.MethodPost:
		f.soap(w, r, known)
	default:
		f.inner.ServeHTTP(w, r)
	}
}

func (f *front) soap(w http.ResponseWriter, r *http.Request, known bool) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	method, err := simulator.UnmarshalBody(types.TypeFunc(), body)
	if err != nil {
		f.inner.ServeHTTP(w, r)
		return
	}
	kill := f.count(method.Name)
	if !known {
		r.Header.Del("Cookie")
		if !slices.Contains(open, method.Name) {
			writeFault(w, &types.NotAuthenticated{NoPermission: types.NoPermission{Object: &method.This, PrivilegeId: "System.View"}})
			return
		}
	}
	hurt := f.take(method.Name, "fault", "lose-answer", "hang")
	switch {
	case kill:
		// What was asked for is done, and nobody hears the answer.
		f.answer(httptest.NewRecorder(), r, method)
		_ = syscall.Kill(f.killed, syscall.SIGKILL)
		hangUp(w)
	case hurt == nil:
		f.answer(w, r, method)
	case hurt.How == "fault":
		writeFault(w, newFault(hurt))
	case hurt.How == "lose-answer":
		f.answer(httptest.NewRecorder(), r, method)
		hangUp(w)
	case hurt.How == "hang":
		<-r.Context().Done()
	}
}

// count says whether this is the call at which the client is to be killed. Questions that change nothing are no steps.
func (f *front) count(method string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.seen[method]++
	if f.killAt == 0 || strings.HasPrefix(method, "Retrieve") || strings.HasPrefix(method, "ContinueRetrieve") {
		return false
	}
	f.killAt--
	return f.killAt == 0
}

func (f *front) answer(w http.ResponseWriter, r *http.Request, method *simulator.Method) {
	switch request := method.Body.(type) {
	case *types.QueryChangedDiskAreas:
		f.queryChangedDiskAreas(w, request)
	case *types.CreateSnapshot_Task:
		f.startTask(w, method, func(ctx *simulator.Context) (types.AnyType, types.BaseMethodFault) {
			return f.createSnapshot(ctx, request)
		})
	case *types.RemoveSnapshot_Task:
		f.startTask(w, method, func(ctx *simulator.Context) (types.AnyType, types.BaseMethodFault) {
			return nil, f.removeSnapshot(ctx, request)
		})
	case *types.ConsolidateVMDisks_Task:
		f.startTask(w, method, func(*simulator.Context) (types.AnyType, types.BaseMethodFault) {
			setConsolidationNeeded(f.machine(request.This), false)
			return nil, nil
		})
	case *types.CurrentTime:
		ahead := time.Now().Add(time.Duration(f.behaviour.ClockAheadMs) * time.Millisecond)
		writeEnvelope(w, http.StatusOK, fmt.Sprintf(`<CurrentTimeResponse xmlns="urn:vim25"><returnval>%s</returnval></CurrentTimeResponse>`,
			ahead.UTC().Format(time.RFC3339Nano)))
	case *types.HasPrivilegeOnEntities:
		f.privileges(w, request)
	case *types.Login:
		recorded := httptest.NewRecorder()
		f.inner.ServeHTTP(recorded, r)
		f.noteSession(recorded)
		copyAnswer(w, recorded)
	default:
		f.inner.ServeHTTP(w, r)
	}
}

func (f *front) privileges(w http.ResponseWriter, r *types.HasPrivilegeOnEntities) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var answer bytes.Buffer
	for _, entity := range r.Entity {
		fmt.Fprintf(&answer, `<returnval><entity type="%s">%s</entity>`, entity.Type, entity.Value)
		for _, id := range r.PrivId {
			granted := !slices.Contains(f.behaviour.Lacking, id)
			fmt.Fprintf(&answer, "<privAvailability><privId>%s</privId><isGranted>%t</isGranted></privAvailability>", id, granted)
		}
		answer.WriteString("</returnval>")
	}
	writeEnvelope(w, http.StatusOK, `<HasPrivilegeOnEntitiesResponse xmlns="urn:vim25">`+answer.String()+`</HasPrivilegeOnEntitiesResponse>`)
}

// noteSession keeps the cookie, and writes it as a vCenter does, in quotes.
func (f *front) noteSession(recorded *httptest.ResponseRecorder) {
	for _, cookie := range recorded.Result().Cookies() {
		if cookie.Name == sessionCookie {
			f.mu.Lock()
			f.sessions[cookie.Value] = true
			f.mu.Unlock()
			recorded.Header().Set("Set-Cookie", fmt.Sprintf(`%s="%s"; Path=/; HttpOnly; Secure;`, sessionCookie, cookie.Value))
		}
	}
}

// take uses up the first rule that fits; those to be skipped first are counted down.
func (f *front) take(method string, how ...string) *rule {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, rule := range f.rules {
		if rule.Method != method || !slices.Contains(how, rule.How) || rule.Times <= 0 {
			continue
		}
		if rule.Skip > 0 {
			rule.Skip--
			continue
		}
		rule.Times--
		return rule
	}
	return nil
}

func (f *front) machine(ref types.ManagedObjectReference) *simulator.VirtualMachine {
	vm, _ := f.model.Map().Get(ref).(*simulator.VirtualMachine)
	return vm
}

func (f *front) machineNamed(name string) (*simulator.VirtualMachine, error) {
	for _, object := range f.model.Map().All("VirtualMachine") {
		if vm := object.(*simulator.VirtualMachine); vm.Name == name {
			return vm, nil
		}
	}
	return nil, fmt.Errorf("there is no machine %s", name)
}

func newFault(rule *rule) types.BaseMethodFault {
	kind, ok := types.TypeFunc()(rule.Fault)
	if !ok {
		return &types.SystemError{Reason: "no fault is called " + rule.Fault}
	}
	fault := reflect.New(kind)
	for _, name := range []string{"File", "InvalidProperty", "Name"} {
		if field := fault.Elem().FieldByName(name); field.IsValid() && field.Kind() == reflect.String {
			field.SetString(rule.Property)
		}
	}
	return fault.Interface().(types.BaseMethodFault)
}

func writeFault(w http.ResponseWriter, fault types.BaseMethodFault) {
	kind := reflect.TypeOf(fault).Elem().Name()
	var detail bytes.Buffer
	start := xml.StartElement{Name: xml.Name{Local: kind + "Fault"}, Attr: []xml.Attr{
		{Name: xml.Name{Local: "xmlns"}, Value: "urn:vim25"}, {Name: xml.Name{Local: "xsi:type"}, Value: kind},
	}}
	_ = xml.NewEncoder(&detail).EncodeElement(fault, start)
	writeEnvelope(w, http.StatusInternalServerError, fmt.Sprintf(
		`<soapenv:Fault><faultcode>ServerFaultCode</faultcode><faultstring>%s</faultstring><detail>%s</detail></soapenv:Fault>`,
		kind, detail.String()))
}

func writeEnvelope(w http.ResponseWriter, status int, body string) {
	w.Header().Set("Content-Type", "text/xml; charset=utf-8")
	w.WriteHeader(status)
	fmt.Fprintf(w, `<?xml version="1.0" encoding="UTF-8"?>
<soapenv:Envelope xmlns:soapenc="http://schemas.xmlsoap.org/soap/encoding/" xmlns:soapenv="http://schemas.xmlsoap.org/soap/envelope/"`+
		` xmlns:xsd="http://www.w3.org/2001/XMLSchema" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance">
<soapenv:Body>%s</soapenv:Body>
</soapenv:Envelope>`, body)
}

func copyAnswer(w http.ResponseWriter, recorded *httptest.ResponseRecorder) {
	for name, values := range recorded.Header() {
		w.Header()[name] = values
	}
	w.WriteHeader(recorded.Code)
	_, _ = w.Write(recorded.Body.Bytes())
}

// hangUp is what a client sees of a server that goes away.
func hangUp(w http.ResponseWriter) {
	if connection, _, err := w.(http.Hijacker).Hijack(); err == nil {
		_ = connection.Close()
	}
}

type work func(ctx *simulator.Context) (types.AnyType, types.BaseMethodFault)

// startTask answers with a task that runs `work` while it holds the machine's lock, as the simulator's own do.
func (f *front) startTask(w http.ResponseWriter, method *simulator.Method, work work) {
	entity := method.This
	if snapshot, ok := f.model.Map().Get(entity).(*simulator.VirtualMachineSnapshot); ok {
		entity = snapshot.Vm
	}
	vm := f.machine(entity)
	if vm == nil {
		writeFault(w, &types.ManagedObjectNotFound{Obj: entity})
		return
	}
	task := f.runTask(vm, method.Name, func(ctx *simulator.Context) (types.AnyType, types.BaseMethodFault) {
		if hurt := f.take(method.Name, "task"); hurt != nil {
			return nil, newFault(hurt)
		}
		return work(ctx)
	})
	writeEnvelope(w, http.StatusOK, fmt.Sprintf(
		`<%sResponse xmlns="urn:vim25"><returnval type="Task">%s</returnval></%sResponse>`, method.Name, task.Self.Value, method.Name))
}

func (f *front) runTask(vm mo.Reference, method string, work work) *simulator.Task {
	ctx := f.context()
	task := simulator.CreateTask(vm, strings.ToLower(method[:1])+strings.TrimSuffix(method[1:], "_Task"), func(*simulator.Task) (types.AnyType, types.BaseMethodFault) { return work(ctx) })
	task.Info.Name = method // as a vCenter names it
	task.Run(ctx)
	return task
}
