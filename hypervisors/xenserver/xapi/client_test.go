package xapi_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	sim "github.com/ringwall/ringwall/conformance/xapi"
	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/hypervisors/xenserver/xapi"
)

type fixture struct {
	pool    *sim.Pool
	hosts   []*sim.Host
	servers []*sim.Server
}

func newPool(t *testing.T, hosts int) *fixture {
	t.Helper()
	f := &fixture{pool: sim.NewPool(sim.Options{Password: "pass-word"})}
	for i := range hosts {
		h := f.pool.AddHost(sim.HostSpec{Name: fmt.Sprintf("xen%d", i+1)})
		s, err := h.Serve()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { s.Close() })
		f.hosts, f.servers = append(f.hosts, h), append(f.servers, s)
	}
	return f
}

// options reach the hosts by their pins.
func (f *fixture) options() xapi.Options {
	o := xapi.Options{User: "root", Password: "pass-word", Timeout: 5 * time.Second}
	for _, s := range f.servers {
		o.Hosts, o.Pins = append(o.Hosts, s.Addr), append(o.Pins, s.Fingerprint)
	}
	return o
}

func client(t *testing.T, o xapi.Options) *xapi.Client {
	t.Helper()
	c, err := xapi.New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(context.Background()); err != nil && !errors.Is(err, core.ErrNotReady) {
			t.Error(err)
		}
	})
	return c
}

func TestRecords(t *testing.T) {
	f := newPool(t, 1)
	f.pool.AddVM(sim.VMSpec{Name: "web", OtherConfig: map[string]string{"a": "b"}}).Start(f.hosts[0])
	vms, err := xapi.Records[xapi.VM](t.Context(), client(t, f.options()))
	if err != nil {
		t.Fatal(err)
	}
	for _, vm := range vms {
		if vm.Name == "web" && vm.Domid == 1 && vm.Present() && vm.OtherConfig["a"] == "b" {
			return
		}
	}
	t.Errorf("%+v", vms)
}

func TestCertificates(t *testing.T) {
	f := newPool(t, 1)
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, []byte(f.servers[0].Certificate), 0o600); err != nil {
		t.Fatal(err)
	}
	pin := f.servers[0].Fingerprint
	colons := strings.ToUpper(pin[:2])
	for i := 2; i < len(pin); i += 2 {
		colons += ":" + strings.ToUpper(pin[i:i+2])
	}
	for _, tc := range []struct {
		name   string
		change func(*xapi.Options)
		ok     bool
	}{
		{"pinned", func(*xapi.Options) {}, true},
		{"pinned as openssl prints it", func(o *xapi.Options) { o.Pins = []string{colons} }, true},
		{"another pin", func(o *xapi.Options) { o.Pins = []string{strings.Repeat("ab", 32)} }, false},
		{"verified", func(o *xapi.Options) { o.Pins, o.CAFile = nil, ca }, true},
		{"verified by the system", func(o *xapi.Options) { o.Pins = nil }, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			o := f.options()
			tc.change(&o)
			logins := f.pool.Calls("session.login_with_password")
			_, err := client(t, o).ThisHost(t.Context())
			if (err == nil) != tc.ok {
				t.Error(err)
			}
			if !tc.ok && (!errors.Is(err, core.ErrNotReady) || f.pool.Calls("session.login_with_password") != logins) {
				t.Errorf("the password may have been sent: %v", err)
			}
		})
	}
	o := f.options()
	o.Pins = []string{"abc"}
	if _, err := xapi.New(o); !errors.Is(err, core.ErrInvalid) {
		t.Error(err)
	}
}

func TestHosts(t *testing.T) {
	for _, h := range []string{"http://xen1", "", "xen1/path", "root@xen1"} {
		if _, err := xapi.New(xapi.Options{Hosts: []string{h}}); !errors.Is(err, core.ErrInvalid) {
			t.Errorf("%q: %v", h, err)
		}
	}
	for _, h := range []string{"xen1", "xen1:4443", "https://xen1", "https://xen1:443/", "fd00::1", "[fd00::1]:443"} {
		if _, err := xapi.New(xapi.Options{Hosts: []string{h}}); err != nil {
			t.Errorf("%q: %v", h, err)
		}
	}
}

// A session that expires under the client is made anew.
func TestSessionExpires(t *testing.T) {
	f := newPool(t, 1)
	c := client(t, f.options())
	for range 3 {
		if _, err := xapi.Records[xapi.Host](t.Context(), c); err != nil {
			t.Fatal(err)
		}
		f.pool.Expire()
	}
	if n := f.pool.Calls("session.login_with_password"); n != 3 {
		t.Errorf("%d logins", n)
	}
}

// A slave names the master, also after the master has changed.
func TestMasterRedirect(t *testing.T) {
	f := newPool(t, 3)
	o := f.options()
	o.Hosts = o.Hosts[2:] // a slave
	c := client(t, o)
	if h, err := c.ThisHost(t.Context()); err != nil || string(h) != f.hosts[0].Ref {
		t.Fatal(h, err)
	}
	f.pool.SetMaster(f.hosts[1])
	f.pool.Restart()
	if h, err := c.ThisHost(t.Context()); err != nil || string(h) != f.hosts[1].Ref {
		t.Fatal(h, err)
	}
}

func TestNextHost(t *testing.T) {
	f := newPool(t, 2)
	o := f.options()
	c := client(t, o)
	if _, err := c.ThisHost(t.Context()); err != nil {
		t.Fatal(err)
	}
	f.servers[0].Close()
	f.pool.SetMaster(f.hosts[1])
	if _, err := c.ThisHost(t.Context()); !errors.Is(err, core.ErrNotReady) {
		t.Fatalf("a call whose answer was lost may have run, and is not made again: %v", err)
	}
	if h, err := c.ThisHost(t.Context()); err != nil || string(h) != f.hosts[1].Ref {
		t.Fatal(h, err)
	}
}

func TestLocalSocket(t *testing.T) {
	pool := sim.NewPool(sim.Options{})
	pool.AddHost(sim.HostSpec{Name: "master"})
	slave := pool.AddHost(sim.HostSpec{Name: "slave"})
	path := filepath.Join(t.TempDir(), "xapi")
	s, err := slave.ServeLocal(path)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if h, err := client(t, xapi.Options{Socket: path}).ThisHost(t.Context()); err != nil || string(h) != slave.Ref {
		t.Fatal(h, err)
	}
}

func TestDeadline(t *testing.T) {
	f := newPool(t, 1)
	o := f.options()
	c := client(t, o)
	first, _, err := c.Events(t.Context(), []string{"vm"}, "", time.Second)
	if err != nil || len(first.Events) == 0 {
		t.Fatal(first, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	began := time.Now()
	if _, _, err := c.Events(ctx, []string{"vm"}, first.Token, time.Minute); !errors.Is(err, context.DeadlineExceeded) || time.Since(began) > 5*time.Second {
		t.Error(err, time.Since(began))
	}
}

// Hosts of before 7.3 answer version 2.0 with what they wrap in Status and
// Value; older ones know /json alone.
func TestOldHosts(t *testing.T) {
	var paths []string
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		paths = append(paths, r.URL.Path)
		if r.URL.Path != "/json" {
			http.NotFound(w, r)
			return
		}
		b, _ := io.ReadAll(r.Body)
		if strings.Contains(string(b), "login") {
			fmt.Fprint(w, `{"result":{"Status":"Success","Value":"OpaqueRef:1"},"error":null,"id":1}`)
			return
		}
		fmt.Fprint(w, `{"result":{"Status":"Failure","ErrorDescription":["HANDLE_INVALID","VM","OpaqueRef:9"]},"error":null,"id":1}`)
	}))
	defer srv.Close()
	c, err := xapi.New(xapi.Options{Hosts: []string{"x"}})
	if err != nil {
		t.Fatal(err)
	}
	xapi.PointAt(c, srv.Listener.Addr().String())
	var out string
	err = c.Call(t.Context(), "VM.get_uuid", &out, "OpaqueRef:9")
	var x *xapi.Error
	if !errors.As(err, &x) || x.Code != "HANDLE_INVALID" || !errors.Is(err, core.ErrNotFound) || fmt.Sprint(paths) != "[/jsonrpc /json /json]" {
		t.Error(err, paths)
	}
}

// Neither the password nor the session is in an error, and no formatting of the
// options shows the password.
func TestSecrets(t *testing.T) {
	f := newPool(t, 1)
	o := f.options()
	o.Password = "wrong-pass-word"
	_, err := client(t, o).ThisHost(t.Context())
	var x *xapi.Error
	if !errors.As(err, &x) || x.Code != "SESSION_AUTHENTICATION_FAILED" {
		t.Fatal(err)
	}
	var log bytes.Buffer
	slog.New(slog.NewTextHandler(&log, nil)).Error("x", "error", err, "options", o, "password", o.Password)
	log.WriteString(fmt.Sprintf("%v %+v %#v", o, o, o))
	if strings.Contains(log.String(), "wrong-pass-word") {
		t.Error(log.String())
	}
	// XAPI quotes what it was given.
	c := client(t, f.options())
	f.hosts[0].Plugins["p"] = "/nonexistent"
	err = c.Call(t.Context(), "VM.get_record", nil, "pass-word")
	if err == nil || strings.Contains(err.Error(), "pass-word") {
		t.Error(err)
	}
}

func TestOtherConfig(t *testing.T) {
	f := newPool(t, 1)
	c := client(t, f.options())
	ref := xapi.Ref(f.hosts[0].Ref)
	for _, v := range []string{"1", "2", ""} {
		if err := c.PutOtherConfig(t.Context(), "host", ref, "k", v); err != nil {
			t.Fatal(err)
		}
		hosts, err := xapi.Records[xapi.Host](t.Context(), c)
		if err != nil || hosts[ref].OtherConfig["k"] != v {
			t.Fatal(hosts, err)
		}
	}
}
