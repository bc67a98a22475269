package registry

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/core/config"
	"github.com/ringwall/ringwall/core/policy"
	"github.com/ringwall/ringwall/core/source/manifest"
)

const examples = "../../../docs/examples/"

func manifests(t *testing.T) (names []string) {
	t.Helper()
	all, err := filepath.Glob(examples + "*.yaml")
	if err != nil || len(all) < 8 {
		t.Fatalf("%d examples: %v", len(all), err)
	}
	for _, name := range all {
		if !strings.HasSuffix(name, ".config.yaml") {
			names = append(names, name)
		}
	}
	return names
}

func parse(t *testing.T, name string) manifest.Manifest {
	t.Helper()
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	m, err := manifest.Parse(data)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// TestExamples: each is whole in itself, compiles, and is something that the
// built-in drivers can do.
func TestExamples(t *testing.T) {
	for _, name := range manifests(t) {
		t.Run(filepath.Base(name), func(t *testing.T) {
			m := parse(t, name)
			if err := m.CheckGroups(func(string) bool { return false }); err != nil {
				t.Error(err)
			}
			rs, err := policy.Compile(policy.Input{Options: core.Options{Bridges: []core.Pattern{"br-*"}, VMPorts: []core.Pattern{"vnet*", "tap*", "vif*"}}, Groups: m.Groups, VMs: m.VMs})
			if err != nil {
				t.Fatal(err)
			}
			nics := 0
			for _, vm := range m.VMs {
				nics += len(vm.NICs)
			}
			if len(rs.NICs) != nics {
				t.Errorf("%d of %d NICs have a policy: the rest is on no br-*", len(rs.NICs), nics)
			}
			for driver, d := range BuiltIn().Backends {
				if err := core.CheckFeatures(driver, d.Info().Features, rs); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

// TestWebTier: the demo counts on these.
func TestWebTier(t *testing.T) {
	m := parse(t, examples+"web-tier.yaml")
	got := map[string][]string{}
	for _, vm := range m.VMs {
		for _, n := range vm.NICs {
			got[vm.Name] = n.Groups
			if n.Binding.Bridge != "br-tenant" || len(n.Addresses) != 2 {
				t.Errorf("%s: %+v", vm.Name, n)
			}
		}
	}
	want := map[string][]string{"web1": {"web"}, "web2": {"web"}, "web3": {"web"}, "db1": {"db"}, "db2": {"db"}, "mallory": nil}
	if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" {
		t.Error(diff)
	}
}

func TestExampleConfigs(t *testing.T) {
	files, err := filepath.Glob(examples + "*.config.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("%d examples: %v", len(files), err)
	}
	for _, name := range files {
		classes, err := config.Check(name, BuiltIn().Known())
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		for _, c := range classes {
			if len(c.Errors) > 0 || c.Backend.Name == "" {
				t.Errorf("%s: %+v", name, c)
			}
		}
	}
}

// TestKnown: settings schemas are complete enough to check config by.
func TestKnown(t *testing.T) {
	k := BuiltIn().Known()
	for _, infos := range []map[string]core.Info{k.Backends, k.Adapters} {
		for name, info := range infos {
			for _, s := range info.Settings {
				if s.Name == "" || s.Help == "" || !slices.Contains([]string{"string", "bool", "int", "duration", "strings"}, s.Type) {
					t.Errorf("%s: %+v", name, s)
				}
				if s.Default == "" || s.Type == "strings" { // a list's default is in words of YAML
					continue
				}
				if _, err := config.CheckSettings(name, core.Settings{s.Name: s.Default}, info.Settings); err != nil {
					t.Errorf("the default is not valid: %v", err)
				}
			}
		}
	}
}
