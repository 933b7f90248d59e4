package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"

	_ "github.com/vmware/govmomi/vapi/simulator" // tags, at /rest
	"github.com/vmware/govmomi/vim25/types"
)

// tag gives the object a tag of a new category.
func (f *front) tag(object types.ManagedObjectReference, category, name string) error {
	const tagging = "/rest/com/vmware/cis/tagging/"
	var session, categoryID, tagID string
	if err := f.rest("", "/rest/com/vmware/cis/session", nil, &session); err != nil {
		return err
	}
	create := map[string]any{"name": category, "description": "", "cardinality": "MULTIPLE", "associable_types": []string{}}
	if err := f.rest(session, tagging+"category", map[string]any{"create_spec": create}, &categoryID); err != nil {
		return err
	}
	create = map[string]any{"name": name, "description": "", "category_id": categoryID}
	if err := f.rest(session, tagging+"tag", map[string]any{"create_spec": create}, &tagID); err != nil {
		return err
	}
	attach := map[string]any{"object_id": map[string]string{"type": object.Type, "id": object.Value}}
	return f.rest(session, tagging+"tag-association/id:"+tagID+"?~action=attach", attach, nil)
}

func (f *front) rest(session, path string, body, value any) error {
	sent, _ := json.Marshal(body)
	r := httptest.NewRequest(http.MethodPost, path, bytes.NewReader(sent))
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("vmware-api-session-id", session)
	r.SetBasicAuth(f.settings.User, f.settings.Password)
	w := httptest.NewRecorder()
	f.inner.ServeHTTP(w, r)
	if w.Code != http.StatusOK {
		return fmt.Errorf("%s: %d %s", path, w.Code, w.Body.String())
	}
	if value == nil {
		return nil
	}
	return json.Unmarshal(w.Body.Bytes(), &struct {
		Value any `json:"value"`
	}{value})
}
