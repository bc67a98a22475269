package examples_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/core/plugin/plugintest"
	"github.com/ringwall/ringwall/core/policy"
)

var update = flag.Bool("update", false, "put the examples' source into the pages that show it")

// The pages show the programs that are built and run below.
func TestPagesShowTheExamples(t *testing.T) {
	for page, source := range map[string]string{
		"../drivers/writing-a-backend.md":      "backend-plugin/main.go",
		"../hypervisors/writing-an-adapter.md": "adapter-plugin/main.go",
	} {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		code, err := os.ReadFile(source)
		if err != nil {
			t.Fatal(err)
		}
		before, rest, ok := bytes.Cut(text, []byte("```go\n"))
		shown, after, ok2 := bytes.Cut(rest, []byte("```\n"))
		if !ok || !ok2 {
			t.Fatalf("%s shows no Go", page)
		}
		if bytes.Equal(shown, code) {
			continue
		}
		if !*update {
			t.Errorf("%s does not show %s as it is; go test ./docs/examples -update", page, source)
			continue
		}
		text = bytes.Join([][]byte{before, []byte("```go\n"), code, []byte("```\n"), after}, nil)
		if err := os.WriteFile(page, text, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// ruleset has one VM with rules of most kinds that the example can do.
func ruleset(t *testing.T, port uint16) policy.Versioned {
	t.Helper()
	any4 := netip.MustParsePrefix("0.0.0.0/0")
	k := core.NICKey{VM: "web-1", MAC: core.MAC{2, 0, 0, 0, 0, 1}}
	return policy.Version(core.Ruleset{
		Options: core.Options{Bridges: []core.Pattern{"br0"}, VMPorts: []core.Pattern{"tap*"}},
		Groups: map[string]core.GroupPolicy{"web": {Entries: []core.Entry{
			{Direction: core.Ingress, Family: core.IPv4, Protocol: core.ProtocolTCP, Span: core.Span{First: port, Last: port}, Peer: core.Peer{Prefix: any4}},
			{Direction: core.Ingress, Family: core.IPv4, Protocol: core.ProtocolTCP, Span: core.Span{First: 22, Last: 22}, Peer: core.Peer{Group: "web"}},
		}}},
		Sets: map[string]core.AddressSet{"web": {Members: []netip.Addr{netip.MustParseAddr("10.0.0.1")}}},
		NICs: map[core.NICKey]core.NICPolicy{k: {Key: k, VM: "web-1", Bridge: "br0", Devices: []string{"tap0"}, Addresses: []netip.Addr{netip.MustParseAddr("10.0.0.1")}, Groups: []string{"web"}}},
	})
}

func TestBackendExample(t *testing.T) {
	program := plugintest.Build(t, "./backend-plugin")
	file := filepath.Join(t.TempDir(), "rules.json")
	open := func() core.SecurityGroupBackend {
		p, err := plugintest.Start(t.Context(), t, program)
		if err != nil {
			t.Fatal(err)
		}
		d, err := p.Backend(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		_, err = d.Open(t.Context(), nil)
		var f *core.FieldError
		if !errors.As(err, &f) || f.Path != "backend.settings.file" {
			t.Errorf("without a file: %v", err)
		}
		b, err := d.Open(t.Context(), core.Settings{"file": file})
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	observe := func(b core.SecurityGroupBackend, want core.Fingerprint, drift int) {
		t.Helper()
		if o, err := b.Observe(t.Context()); err != nil || o.Fingerprint != want || len(o.Drift) != drift {
			t.Errorf("observed %s and %v (%v), want %s", o.Fingerprint.Short(), o.Drift, err, want.Short())
		}
	}
	b := open()
	observe(b, core.Fingerprint{}, 0)
	r80, r81 := ruleset(t, 80), ruleset(t, 81)
	if err := b.Sync(t.Context(), r80.Ruleset); err != nil {
		t.Fatal(err)
	}
	observe(b, r80.Fingerprint, 0)
	b = open() // a restarted agent finds it so
	observe(b, r80.Fingerprint, 0)
	if err := b.Apply(t.Context(), policy.Diff(r80, r81)); err != nil {
		t.Fatal(err)
	}
	observe(b, r81.Fingerprint, 0)
	if err := b.Apply(t.Context(), policy.Diff(r80, r81)); !errors.Is(err, core.ErrConflict) {
		t.Errorf("a change from elsewhere: %v", err)
	}
	refused := ruleset(t, 80)
	refused.Options.CountOnly = true
	if err := b.Sync(t.Context(), refused.Ruleset); !errors.Is(err, core.ErrUnsupported) {
		t.Errorf("a feature that it lacks: %v", err)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, bytes.ReplaceAll(text, []byte(`"tap0"`), []byte(`"tap1"`)), 0o600); err != nil {
		t.Fatal(err)
	}
	observe(b, r81.Fingerprint, 1)
	os.WriteFile(file, []byte("{"), 0o600)
	checks, err := b.Preflight(t.Context())
	if err != nil || len(checks) != 1 || checks[0].Status != core.StatusError || checks[0].Fix == "" {
		t.Errorf("preflight: %+v, %v", checks, err)
	}
	for range 2 {
		if err := b.Teardown(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	observe(b, core.Fingerprint{}, 0)
}

func TestAdapterExample(t *testing.T) {
	file := filepath.Join(t.TempDir(), "vms.json")
	write := func(vms ...map[string]any) {
		b, err := json.Marshal(vms)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file+".new", b, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(file+".new", file); err != nil {
			t.Fatal(err)
		}
	}
	p, err := plugintest.Start(t.Context(), t, plugintest.Build(t, "./adapter-plugin"))
	if err != nil {
		t.Fatal(err)
	}
	d, err := p.Adapter(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	_, err = d.Open(t.Context(), core.Settings{"file": file, "interval": "often"})
	var f *core.FieldError
	if !errors.As(err, &f) || f.Path != "hypervisor.settings.interval" {
		t.Errorf("got %v", err)
	}
	a, err := d.Open(t.Context(), core.Settings{"file": file, "interval": "10ms"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.List(t.Context()); !errors.Is(err, core.ErrNotReady) {
		t.Errorf("without a list: %v", err)
	}
	events, err := a.Watch(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	resync := func() {
		t.Helper()
		select {
		case e := <-events:
			if e.Kind != core.VMResync {
				t.Errorf("got %v", e.Kind)
			}
		case <-time.After(30 * time.Second):
			t.Fatal("no event")
		}
	}
	resync()
	write(map[string]any{"ID": "7c5d", "Name": "web", "State": "running", "NICs": []map[string]any{{"MAC": "02:00:00:00:00:01", "Bridge": "br0", "Tap": "tap0", "Addresses": []string{"10.0.0.1"}}}},
		map[string]any{"ID": "8d6e", "State": "stopped"})
	resync()
	got, err := a.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	want := []core.Instance{{VM: core.VM{Key: "7c5d", Name: "web", NICs: []core.NIC{{MAC: core.MAC{2, 0, 0, 0, 0, 1}, Addresses: []netip.Addr{netip.MustParseAddr("10.0.0.1")}, Binding: core.Binding{Bridge: "br0", Devices: []string{"tap0"}}}}}}}
	if d := cmp.Diff(want, got, cmpopts.EquateEmpty(), cmpopts.EquateComparable(netip.Addr{})); d != "" {
		t.Error(d)
	}
}
