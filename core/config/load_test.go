package config

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ringwall/ringwall/core"
)

const sum = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

// fleet is the example of the documentation with sums in place.
const fleet = `
defaults:
  state: /var/lib/ringwall
  mode: agent
clusters:
  kvm-east:
    hypervisor: {adapter: kvm, run: plugin, settings: {uri: "qemu:///system"}}
    backend: {driver: nftables, settings: {datapath: auto, mark_mask: "0x00ffff00"}}
    bridges: ["cloudbr*", "brvx-*"]
    vm_ports: ["vnet*", "tap*"]
    egress_default: until-rules
    always_allow: [dns]
    enforce: true
  xen-west:
    hypervisor: {adapter: xenserver}
    backend: {driver: iptables, settings: {layout: xenserver}}
hosts:
  kvm-east-07: {cluster: kvm-east, backend: {driver: iptables, settings: {layout: kvm}}}
  "kvm-east-*": {cluster: kvm-east}
  "xen-*": {cluster: xen-west}
plugins:
  kvm: {path: /usr/lib/ringwall/plugins/ringwall-plugin-kvm, sha256: ["` + sum + `"]}
  xenserver: {allow_unpinned: true}
`

func known() Known {
	setting := func(name, typ string, choices ...string) core.SettingInfo {
		return core.SettingInfo{Name: name, Type: typ, Choices: choices}
	}
	return Known{
		Backends: map[string]core.Info{
			"nftables": {Settings: []core.SettingInfo{setting("datapath", "string", "auto", "br_netfilter", "native"),
				setting("mark_mask", "string"), setting("counters", "bool"), setting("workers", "int"), setting("wait", "duration"), setting("tables", "strings")}},
			"iptables": {Settings: []core.SettingInfo{{Name: "layout", Type: "string", Choices: []string{"kvm", "xenserver"}, Required: true, Help: "the chains' layout"}}},
		},
		Adapters: map[string]core.Info{
			"kvm":   {Settings: []core.SettingInfo{setting("uri", "string")}},
			"netns": {},
		},
	}
}

func write(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return filepath.Join(dir, "config.yaml")
}

func load(t *testing.T, host, text string, environ ...string) *Loaded {
	t.Helper()
	l, err := Load(Source{Path: write(t, map[string]string{"config.yaml": text}), Host: host, Environ: environ, Known: known()})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// TestFleet: each host finds its own part of the example.
func TestFleet(t *testing.T) {
	l := load(t, "kvm-east-12.example.com", fleet)
	want := Config{
		Host: "kvm-east-12.example.com", Cluster: "kvm-east", State: "/var/lib/ringwall", Mode: ModeAgent,
		Socket:     Socket{Path: "/run/ringwall/ringwall.sock", Owner: "root"},
		Log:        Log{"info", "text"},
		Hypervisor: Hypervisor{"kvm", RunPlugin, core.Settings{"uri": "qemu:///system"}},
		Backend:    Backend{"nftables", RunInProcess, core.Settings{"datapath": "auto", "mark_mask": "0x00ffff00"}},
		Plugins: map[string]Plugin{
			"kvm":       {Path: "/usr/lib/ringwall/plugins/ringwall-plugin-kvm", SHA256: []string{sum}},
			"xenserver": {AllowUnpinned: true}},
		Bridges: []core.Pattern{"cloudbr*", "brvx-*"}, Unmanaged: []core.Pattern{}, VMPorts: []core.Pattern{"vnet*", "tap*"}, Uplinks: []core.Pattern{},
		AlwaysAllow: []string{"dns"}, Enforce: true,
		CloudStack: CloudStack{BeforeRules: BeforeHold, Files: "/var/run/cloud", Lock: "/var/lock/cloudstack_security_group.lock",
			Script: "/usr/share/cloudstack-common/scripts/vm/network/security_group.py", Command: "/usr/lib/ringwall/security_group",
			Log: "/var/log/cloudstack/agent/security_group.log"},
	}
	if diff := cmp.Diff(want, l.Config); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	opts := core.Options{Bridges: want.Bridges, Unmanaged: []core.Pattern{}, VMPorts: want.VMPorts, Uplinks: []core.Pattern{}, AllowDNS: true}
	if got := l.Options(); !got.Equal(opts) {
		t.Errorf("options %+v, want %+v", got, opts)
	}

	seven := load(t, "kvm-east-07", fleet)
	if diff := cmp.Diff(Backend{"iptables", RunInProcess, core.Settings{"layout": "kvm"}}, seven.Backend); diff != "" {
		t.Errorf("another driver keeps none of the first one's settings, -want +got:\n%s", diff)
	}
	xen := load(t, "xen-1", fleet)
	if xen.Hypervisor.Adapter != "xenserver" || xen.Backend.Settings["layout"] != "xenserver" || len(xen.Bridges) != 0 {
		t.Errorf("xen-1 got %+v", xen.Config)
	}
}

// TestPrecedence: each source wins over all before it.
func TestPrecedence(t *testing.T) {
	const main = "defaults: {state: /1, bridges: [br1], log: {level: debug}}\n"
	cluster := main + "clusters: {c: {state: /2}}\nhosts: {h: {cluster: c}}\n"
	host := main + "clusters: {c: {state: /2}}\nhosts: {h: {cluster: c, state: /3}}\n"
	files := map[string]string{"config.yaml": host, "conf.d/20-b.yaml": "hosts: {h: {state: /5}}\n", "conf.d/10-a.yml": "defaults: {state: /4}\n", "conf.d/README": "not yaml: ["}
	flags := Flags()
	if err := flags.Parse([]string{"--state=/7"}); err != nil {
		t.Fatal(err)
	}
	env := []string{"RINGWALL_STATE=/6", "OTHER_STATE=/x"}
	for _, c := range []struct {
		want, from string
		files      map[string]string
		src        Source
	}{
		{"/var/lib/ringwall", "built-in", map[string]string{"config.yaml": "{}"}, Source{}},
		{"/1", "config.yaml: defaults", map[string]string{"config.yaml": main}, Source{}},
		{"/2", "config.yaml: clusters.c", map[string]string{"config.yaml": cluster}, Source{}},
		{"/3", "config.yaml: hosts.h", map[string]string{"config.yaml": host}, Source{}},
		{"/4", "10-a.yml: defaults", map[string]string{"config.yaml": host, "conf.d/10-a.yml": files["conf.d/10-a.yml"]}, Source{}},
		{"/5", "20-b.yaml: hosts.h", files, Source{}},
		{"/6", "environment: RINGWALL_STATE", files, Source{Environ: env}},
		{"/7", "flag: --state", files, Source{Environ: env, Flags: flags}},
	} {
		c.src.Path, c.src.Host, c.src.Known = write(t, c.files), "h", known()
		l, err := Load(c.src)
		if err != nil {
			t.Errorf("%s: %v", c.want, err)
			continue
		}
		if l.State != c.want {
			t.Errorf("state %s, want %s", l.State, c.want)
		}
		for _, o := range l.Origins {
			if o.Key == "state" && (!strings.HasSuffix(o.From, c.from) || o.Value != c.want) {
				t.Errorf("origin of %s is %q with %v, want %q", c.want, o.From, o.Value, c.from)
			}
		}
		if c.want != "/var/lib/ringwall" && (l.Bridges[0] != "br1" || l.Log.Level != "debug" || l.Log.Format != "text") {
			t.Errorf("%s: keys of other sources are lost: %+v", c.want, l.Config)
		}
	}
}

func TestEnvironment(t *testing.T) {
	l := load(t, "anything", fleet, "RINGWALL_CLUSTER=kvm-east", "RINGWALL_CONFIG=/ignored/here", "RINGWALL_BRIDGES=a, b*,", "RINGWALL_ENFORCE=false",
		"RINGWALL_BACKEND__SETTINGS__COUNTERS=true", "RINGWALL_BACKEND__SETTINGS__WORKERS=4", "RINGWALL_BACKEND__SETTINGS__TABLES=x,y",
		"RINGWALL_SOCKET__GROUP=libvirt", "RINGWALL_PLUGINS__KVM__ALLOW_UNPINNED=true")
	if l.Cluster != "kvm-east" || l.Enforce || l.Socket.Group != "libvirt" || !l.Plugins["kvm"].AllowUnpinned || len(l.Plugins["kvm"].SHA256) != 1 {
		t.Errorf("%+v", l.Config)
	}
	if diff := cmp.Diff([]core.Pattern{"a", "b*"}, l.Bridges); diff != "" {
		t.Error(diff)
	}
	want := core.Settings{"datapath": "auto", "mark_mask": "0x00ffff00", "counters": true, "workers": 4, "tables": []any{"x", "y"}}
	if diff := cmp.Diff(want, l.Backend.Settings); diff != "" {
		t.Error(diff)
	}
	// A driver from the environment clears the settings of the file's, and
	// takes those of the environment, whatever the order of names.
	l = load(t, "kvm-east-1", fleet, "RINGWALL_BACKEND__SETTINGS__LAYOUT=kvm", "RINGWALL_BACKEND__DRIVER=iptables")
	if diff := cmp.Diff(core.Settings{"layout": "kvm"}, l.Backend.Settings); diff != "" {
		t.Error(diff)
	}
	for _, o := range l.Origins {
		if strings.Contains(o.Key, "mark_mask") {
			t.Errorf("a setting that is gone has an origin: %+v", o)
		}
	}
}

// TestErrors: each mistake is one line that names the file and the key.
func TestErrors(t *testing.T) {
	for name, c := range map[string]struct {
		text, host string
		environ    []string
		want       string // after the folder
	}{
		"top":              {text: "default: {}", want: "config.yaml: default: unknown key; did you mean defaults?"},
		"misplaced":        {text: "mode: agent", want: "config.yaml: mode: belongs under defaults, a cluster or a host"},
		"key":              {text: "defaults: {brigdes: []}", want: "config.yaml: defaults.brigdes: unknown key; did you mean bridges?"},
		"nested key":       {text: "clusters: {c: {backend: {drivr: x}}}", want: "config.yaml: clusters.c.backend.drivr: unknown key; did you mean driver?"},
		"host key":         {text: "hosts: {h: {clsuter: x}}", want: "config.yaml: hosts.h.clsuter: unknown key; did you mean cluster?"},
		"cluster key":      {text: "clusters: {c: {cluster: d}}", want: "config.yaml: clusters.c.cluster: unknown key; known here: state, mode, socket, log, hypervisor, backend, bridges, unmanaged, vm_ports, uplinks, egress_default, always_allow, multicast, enforce, cloudstack, plugins"},
		"plugin key":       {text: "plugins: {kvm: {sha: []}}", want: "config.yaml: plugins.kvm.sha: unknown key; did you mean sha256?"},
		"choice":           {text: "defaults: {mode: agnet}", want: "config.yaml: defaults.mode: agnet: unknown; did you mean agent? There are agent, standalone"},
		"list choice":      {text: "defaults: {always_allow: [ntp]}", want: "config.yaml: defaults.always_allow[0]: ntp: unknown; use dns"},
		"bool":             {text: "defaults: {enforce: maybe}", want: "config.yaml: defaults.enforce: maybe: not true or false"},
		"list":             {text: "defaults: {bridges: br0}", want: "config.yaml: defaults.bridges: br0: not a list; write [a, b]"},
		"pattern":          {text: "defaults: {bridges: ['br*0']}", want: "config.yaml: defaults.bridges[0]: br*0: not an interface name; only one * is understood, at the end"},
		"mapping":          {text: "defaults: {backend: nftables}", want: "config.yaml: defaults.backend: nftables: not a mapping; its keys are driver, run, settings"},
		"null":             {text: "defaults:", want: "config.yaml: defaults: nothing: not a mapping"},
		"sum":              {text: "plugins: {kvm: {sha256: ['...']}}", want: "config.yaml: plugins.kvm.sha256[0]: ...: not a SHA-256 sum; use 64 hexadecimal digits, as sha256sum prints them"},
		"yaml":             {text: "defaults: {a: b", want: "config.yaml: not YAML: line 1: did not find expected ',' or '}': invalid"},
		"twice":            {text: "defaults: {}\ndefaults: {}", want: `config.yaml: not YAML: unmarshal errors: line 2: mapping key "defaults" already defined at line 1: invalid`},
		"host pattern":     {text: "hosts: {'a[': {}}", want: "config.yaml: hosts.a[: not a pattern; * ? and [a-z] are understood"},
		"no cluster":       {text: "clusters: {c: {}}", want: "config.yaml: hosts: h: not in any cluster; add it, as in {hosts: {h: {cluster: c}}}, or set RINGWALL_CLUSTER"},
		"host, no cluster": {text: "clusters: {c: {}}\nhosts: {h: {}}", want: "config.yaml: hosts.h.cluster: missing; clusters here: c"},
		"cluster":          {text: "clusters: {east: {}}\nhosts: {h: {cluster: eats}}", want: "config.yaml: hosts.h.cluster: eats: no such cluster: unknown; did you mean east? There are east"},
		"env cluster":      {text: "{}", environ: []string{"RINGWALL_CLUSTER=c"}, want: "config.yaml: RINGWALL_CLUSTER: c: no such cluster: unknown; there are none here"},
		"tie":              {text: "clusters: {c: {}}\nhosts: {'h*1': {cluster: c}, '*h1': {cluster: c}}", host: "h1", want: `config.yaml: hosts: h1: matches both "*h1" and "h*1" equally well; add an entry with its full name`},
		"driver":           {text: "defaults: {backend: {driver: nftable}}", want: "config.yaml: defaults: backend.driver: nftable: unknown; did you mean nftables? There are iptables, nftables; a plugin needs an entry under plugins"},
		"setting":          {text: "defaults: {backend: {settings: {datapaht: auto}}}", want: "config.yaml: defaults: backend.settings.datapaht: unknown key; did you mean datapath?"},
		"setting choice":   {text: "defaults: {backend: {settings: {datapath: fast}}}", want: "config.yaml: defaults: backend.settings.datapath: fast: unknown; use auto or br_netfilter or native"},
		"setting type":     {text: "defaults: {backend: {settings: {mark_mask: 0xff00}}}", want: "config.yaml: defaults: backend.settings.mark_mask: 65280: not a string; put it in quotes"},
		"setting missing":  {text: "defaults: {backend: {driver: iptables}}", want: "backend.settings.layout: missing: the chains' layout"},
		"no plugin":        {text: "defaults: {hypervisor: {adapter: kvm}}", want: `plugins.kvm: missing: hypervisor.run is plugin; give the sum of /usr/lib/ringwall/plugins/ringwall-plugin-kvm, as in {plugins: {kvm: {sha256: ["..."]}}}`},
		"no pin":           {text: "defaults: {hypervisor: {adapter: kvm}}\nplugins: {kvm: {}}", want: "plugins.kvm.sha256: missing; give the sum that sha256sum /usr/lib/ringwall/plugins/ringwall-plugin-kvm prints, or allow_unpinned: true"},
		"in process":       {text: "defaults: {hypervisor: {adapter: acme, run: in_process}}\nplugins: {acme: {allow_unpinned: true}}", want: "config.yaml: defaults: hypervisor.run: in_process: acme is not built in; use plugin"},
		"stray settings":   {text: "defaults: {hypervisor: {settings: {uri: x}}}", want: "hypervisor.settings: there is no adapter that they could be for"},
		"relative":         {text: "defaults: {state: lib}", want: "config.yaml: defaults: state: lib: not an absolute path"},
		"env key":          {text: "{}", environ: []string{"RINGWALL_BRIGDES=a"}, want: "RINGWALL_BRIGDES: unknown variable; did you mean RINGWALL_BRIDGES?"},
		"env value":        {text: "{}", environ: []string{"RINGWALL_ENFORCE=no"}, want: "RINGWALL_ENFORCE: no: not true or false"},
		"env level":        {text: "{}", environ: []string{"RINGWALL_BACKEND=nftables"}, want: "RINGWALL_BACKEND: nftables: not a mapping; its keys are driver, run, settings"},
	} {
		t.Run(name, func(t *testing.T) {
			if c.host == "" {
				c.host = "h"
			}
			path := write(t, map[string]string{"config.yaml": c.text})
			_, err := Load(Source{Path: path, Host: c.host, Environ: c.environ, Known: known()})
			if err == nil {
				t.Fatal("accepted")
			}
			if !errors.Is(err, core.ErrInvalid) {
				t.Errorf("not an ErrInvalid: %v", err)
			}
			if got := strings.TrimPrefix(err.Error(), filepath.Dir(path)+"/"); got != c.want {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
		})
	}
}

func TestMissingFile(t *testing.T) {
	_, err := Load(Source{Path: filepath.Join(t.TempDir(), "none.yaml"), Host: "h", Known: known()})
	if !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), "--config") {
		t.Errorf("a file that was asked for must exist: %v", err)
	}
}

func TestFlagError(t *testing.T) {
	flags := Flags()
	if err := flags.Parse([]string{"--log-level=loud"}); err != nil {
		t.Fatal(err)
	}
	_, err := Load(Source{Path: write(t, map[string]string{"config.yaml": "{}"}), Host: "h", Flags: flags, Known: known()})
	if want := "--log-level: loud: unknown; use debug or info or warn or error"; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

// TestDottedNames: hosts and plugins with dots in their names stay whole.
func TestDottedNames(t *testing.T) {
	l := load(t, "h.example.com", "defaults: {hypervisor: {adapter: acme.v2}}\nclusters: {east.1: {mode: standalone}}\nhosts: {h.example.com: {cluster: east.1}}\nplugins: {acme.v2: {path: /opt/acme, allow_unpinned: true}}")
	if l.Mode != ModeStandalone || l.Plugins["acme.v2"].Path != "/opt/acme" {
		t.Errorf("%+v", l.Config)
	}
}

// TestCloudStackDefaults: CloudStack's rules mean something else by default,
// and what is said counts all the same.
func TestCloudStackDefaults(t *testing.T) {
	l := load(t, "h", "defaults: {cloudstack: {enabled: true}}")
	if o := l.Options(); !o.AllowDNS || o.Multicast != core.MulticastDrop || l.CloudStack.BeforeRules != BeforeHold || l.CloudStack.Files != "/var/run/cloud" {
		t.Errorf("%+v %+v", o, l.CloudStack)
	}
	for _, o := range l.Origins {
		if o.Key == "multicast" && o.From != "cloudstack.enabled" {
			t.Errorf("%+v", o)
		}
	}
	l = load(t, "h", "defaults: {cloudstack: {enabled: true, before_rules: allow}, always_allow: [], multicast: by-rules}")
	if o := l.Options(); o.AllowDNS || o.Multicast != core.MulticastByRules || l.CloudStack.BeforeRules != BeforeAllow {
		t.Errorf("%+v %+v", o, l.CloudStack)
	}
	if o := load(t, "h", "defaults: {}").Options(); o.AllowDNS || o.Multicast != core.MulticastByRules {
		t.Errorf("%+v", o)
	}
}
