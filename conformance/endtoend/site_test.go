package endtoend

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/ringwall/ringwall/conformance/lab"
	"github.com/ringwall/ringwall/conformance/lab/labtest"
	"github.com/ringwall/ringwall/conformance/lab/programs"
	"github.com/ringwall/ringwall/core"
)

// Exit codes of ringwall.
const (
	exitOK         = 0
	exitInput      = 2
	exitDifference = 3
)

// vms of docs/examples/web-tier.yaml, by last octet of their addresses.
var vms = []struct {
	name  string
	mac   core.MAC
	octet int
}{
	{"web1", core.MAC{2, 0, 0, 0, 1, 1}, 11}, {"web2", core.MAC{2, 0, 0, 0, 1, 2}, 12}, {"web3", core.MAC{2, 0, 0, 0, 1, 3}, 13},
	{"db1", core.MAC{2, 0, 0, 0, 2, 1}, 21}, {"db2", core.MAC{2, 0, 0, 0, 2, 2}, 22}, {"mallory", core.MAC{2, 0, 0, 0, 9, 1}, 66},
}

// site is a host with the VMs and an uplink, and the agent on it.
type site struct {
	host   *labtest.Host
	at     map[string]*lab.Station // "fabric" is behind the uplink
	dir    string                  // config, state and socket
	bin    string
	config string
	agent  *exec.Cmd
	log    programs.Log
}

const configText = `defaults:
  state: %[1]s/state
  socket: {path: %[1]s/ringwall.sock}
  hypervisor: {adapter: netns, run: %[3]s, settings: {namespaces: ["web*", "db*", mallory], ports: ["vnet*"]}}
  backend: {driver: nftables, run: %[3]s}
  bridges: [br-tenant]
plugins:
  netns: {path: %[2]s/ringwall-plugin-netns, allow_unpinned: true}
  nftables: {path: %[2]s/ringwall-plugin-nftables, allow_unpinned: true}
`

func newSite(t *testing.T, run string) *site {
	t.Helper()
	s := &site{dir: t.TempDir(), bin: os.Getenv(inside), at: map[string]*lab.Station{}}
	s.host = labtest.New(t, lab.Options{})
	s.host.AddBridge(lab.BridgeSpec{Name: "br-tenant", MAC: core.MAC{2, 0, 0, 0, 0, 0xfe}})
	addresses := func(octet int) []netip.Prefix {
		return []netip.Prefix{netip.MustParsePrefix(fmt.Sprintf("10.20.0.%d/24", octet)), netip.MustParsePrefix(fmt.Sprintf("fd00:20::%d/64", octet))}
	}
	specs := []lab.StationSpec{{Name: "fabric", Ports: []lab.PortSpec{{Bridge: "br-tenant", Device: "eth0", MAC: core.MAC{2, 0, 0, 0, 0, 9}, Addresses: addresses(254)}}}}
	for i, vm := range vms {
		specs = append(specs, lab.StationSpec{Name: vm.name, NetnsName: vm.name, Ports: []lab.PortSpec{{
			Bridge: "br-tenant", Device: fmt.Sprintf("vnet%d", i), MAC: vm.mac, Addresses: addresses(vm.octet)}}})
	}
	for i, station := range s.host.AddStations(specs...) {
		s.at[specs[i].Name] = station
	}
	labtest.Check(t, os.Mkdir(s.path("state"), 0o700))
	s.config = fmt.Sprintf(configText, s.dir, s.bin, run)
	s.write(t, "config.yaml", s.config)
	t.Cleanup(func() {
		if s.agent != nil {
			s.stop(t)
		}
	})
	return s
}

func (s *site) path(name string) string { return filepath.Join(s.dir, name) }

func (s *site) write(t *testing.T, name, text string) {
	t.Helper()
	labtest.Check(t, os.WriteFile(s.path(name), []byte(text), 0o600))
}

// start starts ringwalld and waits until the kernel holds what is wanted.
func (s *site) start(t *testing.T) {
	t.Helper()
	s.agent = exec.Command(filepath.Join(s.bin, "ringwalld"), "--config", s.path("config.yaml"))
	s.agent.Stderr = &s.log
	labtest.Check(t, s.host.Do(s.agent.Start))
	s.eventually(t, "verify", func() error {
		if _, err := os.Stat(s.path("ringwall.sock")); err != nil {
			return err
		}
		_, err := s.ringwall(exitOK, "verify")
		return err
	})
}

// stop ends ringwalld as systemd does.
func (s *site) stop(t *testing.T) {
	t.Helper()
	labtest.Check(t, s.agent.Process.Signal(syscall.SIGTERM))
	if err := s.agent.Wait(); err != nil {
		t.Errorf("ringwalld ended with %v; it said:\n%s", err, &s.log)
	}
	s.agent = nil
}

// patience is for what should be there at once on a machine that is busy.
const patience = 15 * time.Second

// eventually tries until it works.
func (s *site) eventually(t *testing.T, what string, try func() error) {
	t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		err := try()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within %v: %v; ringwalld said:\n%s", what, patience, err, &s.log)
		}
	}
}

// ringwall runs the command, which must end with the code, and returns what it
// prints.
func (s *site) ringwall(code int, args ...string) (string, error) {
	var out, complaints bytes.Buffer
	cmd := exec.Command(filepath.Join(s.bin, "ringwall"), append([]string{"--config", s.path("config.yaml")}, args...)...)
	cmd.Stdout, cmd.Stderr = &out, &complaints
	err := s.host.Do(cmd.Run)
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		return "", err
	}
	if got := cmd.ProcessState.ExitCode(); got != code {
		return "", fmt.Errorf("ringwall %s: exit code %d, want %d\n%s%s", strings.Join(args, " "), got, code, &out, &complaints)
	}
	return out.String() + complaints.String(), nil
}

// must is ringwall for a command that ends with code 0; its output must hold all
// of want.
func (s *site) must(t *testing.T, args []string, want ...string) {
	t.Helper()
	s.ends(t, exitOK, args, want...)
}

func (s *site) ends(t *testing.T, code int, args []string, want ...string) {
	t.Helper()
	out, err := s.ringwall(code, args...)
	if err != nil {
		t.Fatalf("%v; ringwalld said:\n%s", err, &s.log)
	}
	for _, w := range want {
		if !strings.Contains(out, w) {
			t.Errorf("ringwall %s: no %q in\n%s", strings.Join(args, " "), w, out)
		}
	}
}

// ask reads what a command says as JSON, and sees that YAML says the same.
func ask[T any](t *testing.T, s *site, code int, args ...string) (got T) {
	t.Helper()
	text := map[string]string{}
	for _, form := range []string{"json", "yaml"} {
		out, err := s.ringwall(code, append(args, "-o", form)...)
		if err != nil {
			t.Fatal(err)
		}
		text[form] = out
	}
	if err := json.Unmarshal([]byte(text["json"]), &got); err != nil {
		t.Fatalf("ringwall %s -o json: %v\n%s", strings.Join(args, " "), err, text["json"])
	}
	var fromJSON, fromYAML any
	labtest.Check(t, json.Unmarshal([]byte(text["json"]), &fromJSON))
	if err := yaml.Unmarshal([]byte(text["yaml"]), &fromYAML); err != nil {
		t.Fatalf("ringwall %s -o yaml: %v\n%s", strings.Join(args, " "), err, text["yaml"])
	}
	if j, y := shape(fromJSON), shape(fromYAML); j != y {
		t.Errorf("ringwall %s: json has %s, yaml %s", strings.Join(args, " "), j, y)
	}
	return got
}

// shape is what a value is made of, without the values: counters go on.
func shape(v any) string {
	switch v := v.(type) {
	case []any:
		return fmt.Sprintf("a list of %d", len(v))
	case map[string]any:
		keys := make([]string, 0, len(v))
		for k := range v {
			keys = append(keys, k+": "+shape(v[k]))
		}
		slices.Sort(keys)
		return fmt.Sprint(keys)
	}
	return "a value"
}
