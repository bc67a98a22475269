package xapi_test

import (
	"crypto/tls"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ringwall/ringwall/conformance/xapi"
)

// wire speaks to a host as any client might: bytes in, bytes out.
type wire struct {
	t    *testing.T
	url  string
	http *http.Client
}

func serve(t *testing.T, h *xapi.Host) wire {
	t.Helper()
	s, err := h.Serve()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	// The certificate is another test's business.
	return wire{t, s.URL(), &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableKeepAlives: true}}}
}

func (w wire) post(path, body string) string {
	w.t.Helper()
	resp, err := w.http.Post(w.url+path, "text/xml", strings.NewReader(body))
	if err != nil {
		w.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		w.t.Fatal(err)
	}
	return string(b)
}

func (w wire) json(version, path, method string, params ...any) map[string]any {
	w.t.Helper()
	call := map[string]any{"id": 7, "method": method, "params": params}
	if version != "" {
		call["jsonrpc"] = version
	}
	b, _ := json.Marshal(call)
	var out map[string]any
	if err := json.Unmarshal([]byte(w.post(path, string(b))), &out); err != nil {
		w.t.Fatal(err)
	}
	return out
}

func (w wire) login() string {
	w.t.Helper()
	s, _ := w.json("2.0", "/jsonrpc", "session.login_with_password", "root", "secret", "1.0", "test")["result"].(string)
	return s
}

func TestXMLRPC(t *testing.T) {
	p := xapi.NewPool(xapi.Options{})
	w := serve(t, p.AddHost(xapi.HostSpec{Name: "xen1"}))
	call := func(method string, params ...string) string {
		body := "<?xml version='1.0'?>\n<methodCall>\n<methodName>" + method + "</methodName>\n<params>\n"
		for _, p := range params {
			body += "<param>\n<value><string>" + p + "</string></value>\n</param>\n"
		}
		return w.post("/", body+"</params>\n</methodCall>\n")
	}
	in := call("session.login_with_password", "root", "secret")
	const before = "<member><name>Status</name><value>Success</value></member><member><name>Value</name><value>"
	_, rest, ok := strings.Cut(in, before)
	session, _, _ := strings.Cut(rest, "<")
	if !ok || !strings.HasPrefix(session, "OpaqueRef:") {
		t.Fatal(in)
	}
	if out := call("host.get_by_name_label", session, "xen1"); !strings.Contains(out, "<array><data><value>OpaqueRef:") {
		t.Error(out)
	}
	// XAPI's integers are strings of digits, its booleans booleans.
	if out := call("VM.get_all_records", session); !strings.Contains(out, "<name>domid</name><value>0</value>") || !strings.Contains(out, "<name>is_control_domain</name><value><boolean>1</boolean></value>") {
		t.Error(out)
	}
	for _, out := range []string{call("VM.get_all", "OpaqueRef:1"), call("VM.nonsense", session), call("VM.get_uuid", session, "OpaqueRef:1")} {
		if !strings.Contains(out, "<value>Failure</value>") || !strings.Contains(out, "<name>ErrorDescription</name><value><array>") {
			t.Error(out)
		}
	}
	if out := w.post("/", "<methodCall>"); strings.Contains(out, "methodResponse") {
		t.Error(out)
	}
}

func TestJSONRPC(t *testing.T) {
	p := xapi.NewPool(xapi.Options{})
	w := serve(t, p.AddHost(xapi.HostSpec{Name: "xen1"}))
	slave := serve(t, p.AddHost(xapi.HostSpec{Name: "xen2"}))
	if out := slave.json("2.0", "/jsonrpc", "session.login_with_password", "root", "secret"); out["error"].(map[string]any)["message"] != "HOST_IS_SLAVE" ||
		out["error"].(map[string]any)["data"].([]any)[0] != strings.TrimPrefix(w.url, "https://") {
		t.Error(out)
	}
	old := w.json("", "/json", "session.login_with_password", "root", "secret")["result"].(map[string]any)
	if old["Status"] != "Success" || old["Value"] == "" {
		t.Error(old)
	}
	old = w.json("", "/json", "VM.get_all", "OpaqueRef:1")["result"].(map[string]any)
	if old["Status"] != "Failure" || old["ErrorDescription"].([]any)[0] != "SESSION_INVALID" {
		t.Error(old)
	}
}

// Events: all there is first, then what has changed, nothing after the timeout;
// tokens of before a restart are void.
func TestEvents(t *testing.T) {
	p := xapi.NewPool(xapi.Options{})
	h := p.AddHost(xapi.HostSpec{Name: "xen1"})
	w := serve(t, h)
	from := func(session, token string, wait float64) (events []any, next string, failed string) {
		out := w.json("2.0", "/jsonrpc", "event.from", session, []string{"vm"}, token, wait)
		if e, ok := out["error"].(map[string]any); ok {
			return nil, "", e["message"].(string)
		}
		r := out["result"].(map[string]any)
		return r["events"].([]any), r["token"].(string), ""
	}
	session := w.login()
	first, token, failed := from(session, "", 1)
	if len(first) != 1 || failed != "" {
		t.Fatal(first, failed)
	}
	began := time.Now()
	if none, _, _ := from(session, token, 0.2); len(none) > 0 || time.Since(began) < 200*time.Millisecond {
		t.Error(none, time.Since(began))
	}
	go func() { p.AddVM(xapi.VMSpec{Name: "web"}) }()
	next, token, _ := from(session, token, 10)
	e := next[0].(map[string]any)
	if len(next) != 1 || e["operation"] != "add" || e["class"] != "vm" || e["snapshot"].(map[string]any)["name_label"] != "web" {
		t.Error(next)
	}
	p.Restart()
	if _, _, failed := from(session, token, 1); failed != "SESSION_INVALID" {
		t.Error(failed)
	}
	if _, _, failed := from(w.login(), token, 1); failed != "EVENTS_LOST" {
		t.Error(failed)
	}
	if _, _, failed := from(w.login(), "nonsense", 1); failed != "EVENT_FROM_TOKEN_PARSE_FAILURE" {
		t.Error(failed)
	}
}

// call_plugin runs an executable with one argument and reads what it prints.
func TestCallPlugin(t *testing.T) {
	p := xapi.NewPool(xapi.Options{})
	h := p.AddHost(xapi.HostSpec{Name: "xen1"})
	w := serve(t, h)
	plugin := func(script string) map[string]any {
		file := filepath.Join(t.TempDir(), "p")
		if err := os.WriteFile(file, []byte("#!/bin/sh\n"+script), 0o755); err != nil {
			t.Fatal(err)
		}
		h.Plugins["p"] = file
		return w.json("2.0", "/jsonrpc", "host.call_plugin", w.login(), h.Ref, "p", "f", map[string]string{"a": "<b>&"})
	}
	const answer = `echo "<?xml version='1.0'?><methodResponse><params><param><value><struct><member><name>Status</name><value>%s</value></member>%s</struct></value></param></params></methodResponse>"`
	ok := strings.Replace(strings.Replace(answer, "%s", "Success", 1), "%s", "<member><name>Value</name><value><string>$#</string></value></member>", 1)
	if out := plugin(`case "$1" in *"<methodName>f</methodName>"*"<name>a</name><value>&lt;b&gt;&amp;</value>"*) ` + ok + `;; esac`); out["result"] != "1" {
		t.Error(out)
	}
	failure := func(out map[string]any) string {
		e, _ := out["error"].(map[string]any)
		s, _ := e["message"].(string)
		return s
	}
	bad := strings.Replace(strings.Replace(answer, "%s", "Failure", 1), "%s", "<member><name>ErrorDescription</name><value><array><data><value>MY_ERROR</value></data></array></value></member>", 1)
	for script, want := range map[string]string{bad: "MY_ERROR", "exit 3": "XENAPI_PLUGIN_FAILURE", "echo nonsense": "XENAPI_PLUGIN_FAILURE"} {
		if out := plugin(script); failure(out) != want {
			t.Error(script, out)
		}
	}
	if out := w.json("2.0", "/jsonrpc", "host.call_plugin", w.login(), h.Ref, "none", "f", map[string]string{}); failure(out) != "XENAPI_MISSING_PLUGIN" {
		t.Error(out)
	}
}
