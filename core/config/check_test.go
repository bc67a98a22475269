package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestCheck(t *testing.T) {
	dir := t.TempDir()
	empty := filepath.Join(dir, "plugin")
	if err := os.WriteFile(empty, nil, 0o755); err != nil {
		t.Fatal(err)
	}
	text := strings.ReplaceAll(fleet, "/usr/lib/ringwall/plugins/ringwall-plugin-kvm", empty) +
		"  wrong: {path: " + empty + ", sha256: [\"" + strings.Repeat("0", 64) + "\"]}\n"
	text = strings.Replace(text, "hosts:\n", "hosts:\n  kvm-odd: {cluster: kvm-east, hypervisor: {adapter: wrong}, enforce: false}\n  stray: {mode: agent}\n", 1)
	path := write(t, map[string]string{"config.yaml": text})
	t.Setenv("RINGWALL_MODE", "nonsense") // this machine has no say
	got, err := Check(path, known())
	if err != nil {
		t.Fatal(err)
	}
	pinned := &PluginBinary{Path: empty, SHA256: sum, Pins: []string{sum}, Status: PluginPinned}
	kvm := Component{"kvm", RunPlugin, pinned}
	absent := Component{"xenserver", RunPlugin, &PluginBinary{Path: PluginDir + "/ringwall-plugin-xenserver", Status: PluginAbsent}}
	nft, ipt := Component{Name: "nftables", Run: RunInProcess}, Component{Name: "iptables", Run: RunInProcess}
	none := []string{"bridges: none, so nothing is enforced"}
	want := []Class{
		{Host: "stray", Errors: []string{"hosts.stray.cluster: missing; clusters here: kvm-east, xen-west"}},
		{Cluster: "kvm-east", Backend: nft, Hypervisor: kvm},
		{Cluster: "kvm-east", Host: "kvm-east-*", Backend: nft, Hypervisor: kvm},
		{Cluster: "kvm-east", Host: "kvm-east-07", Backend: ipt, Hypervisor: kvm},
		{Cluster: "kvm-east", Host: "kvm-odd", Backend: nft,
			Hypervisor: Component{"wrong", RunPlugin, &PluginBinary{Path: empty, SHA256: sum, Pins: []string{strings.Repeat("0", 64)}, Status: PluginMismatch}},
			Errors:     []string{"plugins.wrong.sha256: " + empty + " has the sum " + sum + ", which is none of the pins"},
			Warnings:   []string{"enforce: false, so everything passes and is only counted"}},
		{Cluster: "xen-west", Backend: ipt, Hypervisor: absent, Warnings: none},
		{Cluster: "xen-west", Host: "xen-*", Backend: ipt, Hypervisor: absent, Warnings: none},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

// TestCheckEveryCluster: a mistake in a cluster that this host is not in is told.
func TestCheckEveryCluster(t *testing.T) {
	path := write(t, map[string]string{"config.yaml": "clusters:\n  a: {bridges: [br0]}\n  b: {backend: {settings: {nope: 1}}, bridges: [br0]}\n"})
	got, err := Check(path, known())
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != 2 || len(got[0].Errors) != 0 || len(got[1].Errors) != 1 || !strings.Contains(got[1].Errors[0], "config.yaml: clusters.b: backend.settings.nope: unknown key") {
		t.Errorf("%+v", got)
	}
	if _, err := Check(write(t, map[string]string{"config.yaml": "clusters: {a: {nope: 1}}"}), known()); err == nil {
		t.Error("an unknown key in a cluster passed")
	}
}

func TestCheckDefaultsOnly(t *testing.T) {
	got, err := Check(write(t, map[string]string{"config.yaml": "defaults: {bridges: [br0]}"}), known())
	if err != nil || len(got) != 1 || got[0].Backend.Name != "nftables" || got[0].Hypervisor.Name != NoAdapter || got[0].Errors != nil || got[0].Warnings != nil {
		t.Errorf("%+v, %v", got, err)
	}
}
