package main

import (
	"bytes"
	"compress/zlib"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ringwall/ringwall/cmd/internal/agenttest"
	"github.com/ringwall/ringwall/core"
)

// request is a call as Python's XML-RPC library writes it; XAPI leaves the string
// elements out.
func request(function string, pairs ...string) string {
	var b strings.Builder
	b.WriteString("<?xml version='1.0'?>\n<methodCall>\n<methodName>" + function + "</methodName>\n<params>\n<param>\n<value><string>OpaqueRef:1</string></value>\n</param>\n<param>\n<value><struct>\n")
	for i := 0; i < len(pairs); i += 2 {
		b.WriteString("<member>\n<name>" + pairs[i] + "</name>\n<value><string>" + pairs[i+1] + "</string></value>\n</member>\n")
	}
	b.WriteString("</struct></value>\n</param>\n</params>\n</methodCall>\n")
	return b.String()
}

func deflate(s string) string {
	var b bytes.Buffer
	w := zlib.NewWriter(&b)
	w.Write([]byte(s))
	w.Close()
	return base64.StdEncoding.EncodeToString(b.Bytes())
}

// dom0 is a host in memory that CloudStack drives.
type dom0 struct {
	*agenttest.Host
	t      *testing.T
	plugin string
	exec   func(string, []string, []string) error
}

func newDom0(t *testing.T) *dom0 {
	h := agenttest.New(t)
	h.Write(t, "mode: standalone", "bridges: [xenbr0]", "hypervisor: {adapter: fake, run: in_process}",
		"cloudstack: {enabled: true, files: "+filepath.Join(h.Dir, "cloud")+", log: "+filepath.Join(h.Dir, "log")+"}")
	return &dom0{Host: h, t: t, plugin: filepath.Join(t.TempDir(), "vmops"), exec: func(string, []string, []string) error { return errors.New("no exec") }}
}

func (d *dom0) run(args ...string) (out string, code int) {
	d.t.Helper()
	var stdout, stderr bytes.Buffer
	env := environment{args: append([]string{d.plugin}, args...), environ: []string{"RINGWALL_CONFIG=" + d.Config()}, stdout: &stdout, stderr: &stderr,
		registry: d.Registry(), hostname: "host-1", log: slog.New(slog.DiscardHandler), exec: d.exec, timing: agenttest.Timing}
	code = env.run(d.t.Context())
	return stdout.String(), code
}

func (d *dom0) put(name, domid string, macs ...core.MAC) {
	in := core.Instance{DomainID: domid, VM: core.VM{Key: core.VMKey("uuid-" + name), Name: name}}
	for i, m := range macs {
		n := string(rune('0' + i))
		in.VM.NICs = append(in.VM.NICs, core.NIC{MAC: m, Binding: core.Binding{Bridge: "xenbr0", Devices: []string{"tap" + domid + "." + n, "vif" + domid + "." + n}}})
	}
	d.Adapter.Put(in)
}

const (
	// As Python's xmlrpc library and print write them.
	pythonTrue = "<?xml version='1.0'?>\n<methodResponse>\n<params>\n<param>\n<value><struct>\n<member>\n<name>Status</name>\n<value><string>Success</string></value>\n</member>\n<member>\n<name>Value</name>\n<value><string>true</string></value>\n</member>\n</struct></value>\n</param>\n</params>\n</methodResponse>\n\n"
	pythonFail = "<?xml version='1.0'?>\n<methodResponse>\n<params>\n<param>\n<value><struct>\n<member>\n<name>Status</name>\n<value><string>Failure</string></value>\n</member>\n<member>\n<name>ErrorDescription</name>\n<value><array><data>\n<value><string>XENAPI_PLUGIN_FAILURE</string></value>\n<value><string>f</string></value>\n<value><string>&lt;class 'E'&gt;</string></value>\n<value><string>a &amp; b</string></value>\n</data></array></value>\n</member>\n</struct></value>\n</param>\n</params>\n</methodResponse>\n\n"
)

func TestAnswers(t *testing.T) {
	if diff := cmp.Diff(pythonTrue, success("true")); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(pythonFail, failure("XENAPI_PLUGIN_FAILURE", "f", "<class 'E'>", "a & b")); diff != "" {
		t.Error(diff)
	}
	if s := success("a\x00\x01\xff\ufffe"); !strings.Contains(s, "<string>a????</string>") {
		t.Errorf("%q", s)
	}
}

var mac1, mac2 = core.MAC{2, 0, 0, 0, 0, 1}, core.MAC{2, 0, 0, 0, 0, 2}

func defaults(mac core.MAC, ip, sec string) []string {
	return []string{"vmName", "i-2-3-VM", "vmIP", ip, "vmMAC", mac.String(), "vmID", "3", "secIps", sec}
}

func rules(text, seq string) []string {
	return append(defaults(mac1, "10.1.1.3", "0;"), "signature", "0123456789abcdef0123456789abcdef", "seqno", seq, "deflated", "true", "rules", deflate(text))
}

func (d *dom0) want(want string, function string, pairs ...string) {
	d.t.Helper()
	out, code := d.run(request(function, pairs...))
	if diff := cmp.Diff(success(want), out); diff != "" || code != 0 {
		d.t.Errorf("%s: exit %d: %s", function, code, diff)
	}
}

func (d *dom0) refused(says string, function string, pairs ...string) {
	d.t.Helper()
	before := d.Backend.Fingerprint()
	out, code := d.run(request(function, pairs...))
	if !strings.Contains(out, "<string>Failure</string>") || !strings.Contains(out, "<string>XENAPI_PLUGIN_FAILURE</string></value>\n<value><string>"+function+"</string>") || !strings.Contains(out, says) || code != 0 {
		d.t.Errorf("%s: exit %d: %s", function, code, out)
	}
	if d.Backend.Fingerprint() != before {
		d.t.Errorf("%s changed what is enforced", function)
	}
}

// Life of a VM with two NICs, as the management server tells it.
func TestLife(t *testing.T) {
	d := newDom0(t)
	d.put("r-1-VM", "9", core.MAC{2, 0, 0, 0, 0, 9})
	d.put("i-2-3-VM", "1", mac1, mac2)
	d.want("true", "can_bridge_firewall", "host_uuid", "x", "instance", "VM")
	d.want("true", "default_network_rules", defaults(mac1, "10.1.1.3", "10.1.1.4;fd00::4;")...)
	d.want("true", "default_network_rules", defaults(mac2, "10.1.2.3", "0;")...)
	d.want("i-2-3-VM,3,10.1.1.3,1,_initial_,-1", "get_rule_logs_for_vms", "host_uuid", "x")
	d.want("true", "network_rules", rules("I:tcp;80;80;10.0.0.0/8,fd00::/8,NEXT I:47;0;0;0.0.0.0/0,NEXT E:all;0;0;0.0.0.0/0,::/0,NEXT ", "5")...)
	d.want("i-2-3-VM,3,10.1.1.3,1,0123456789abcdef0123456789abcdef,5", "get_rule_logs_for_vms", "host_uuid", "x")
	rs := d.Backend.Ruleset()
	if len(rs.NICs) != 3 || len(rs.Groups["cloudstack/i-2-3-VM"].Entries) < 5 {
		t.Errorf("%+v", rs)
	}
	for k, n := range rs.NICs {
		if k.MAC == mac1 && len(n.Addresses) != 3 || len(n.Devices) != 2 {
			t.Errorf("%+v", n)
		}
	}
	d.want("true", "network_rules_vmSecondaryIp", "vmName", "i-2-3-VM", "vmMac", mac1.String(), "vmSecIp", "10.1.1.9", "action", "-A")
	d.want("true", "network_rules_vmSecondaryIp", "vmName", "i-2-3-VM", "vmMac", mac1.String(), "vmSecIp", "10.1.1.4", "action", "-D")
	d.put("i-2-3-VM", "7", mac1, mac2) // a reboot inside the guest
	d.want("i-2-3-VM,3,10.1.1.3,7,0123456789abcdef0123456789abcdef,5", "get_rule_logs_for_vms", "host_uuid", "x")
	for k, n := range d.Backend.Ruleset().NICs {
		if k.MAC == mac1 && cmp.Diff("[10.1.1.3 10.1.1.9 fd00::4] [tap7.0 vif7.0]", strings.TrimSpace(strings.Join([]string{sprint(n.Addresses), sprint(n.Devices)}, " "))) != "" {
			t.Errorf("%+v", n)
		}
	}
	d.want("true", "destroy_network_rules_for_vm", "vmName", "i-2-3-VM")
	d.Adapter.Stop("uuid-i-2-3-VM")
	d.want("1", "cleanup_rules", "instance", "VM")
	d.want("", "get_rule_logs_for_vms", "host_uuid", "x")
}

func sprint[T any](list []T) string { return fmt.Sprint(list) }

func TestWrongArguments(t *testing.T) {
	d := newDom0(t)
	d.put("i-2-3-VM", "1", mac1)
	d.want("true", "default_network_rules", defaults(mac1, "10.1.1.3", "0;")...)
	d.refused("vmMAC: missing", "default_network_rules", "vmName", "i-2-3-VM", "vmID", "3", "vmIP", "", "secIps", "0;")
	d.refused("not an IP address", "default_network_rules", defaults(mac1, "10.1.1", "0;")...)
	d.refused("secIps", "default_network_rules", defaults(mac1, "10.1.1.3", "10.1;")...)
	d.refused("instance name", "destroy_network_rules_for_vm", "vmName", "$(reboot)")
	d.refused("use -A or -D", "network_rules_vmSecondaryIp", "vmName", "i-2-3-VM", "vmMac", mac1.String(), "vmSecIp", "10.1.1.9", "action", "-X")
	d.refused("seqno", "network_rules", rules("", "five")...)
	bad := rules("", "5")
	bad[len(bad)-1] = "%%%"
	d.refused("not zlib", "network_rules", bad...)
	bad[len(bad)-1] = deflate(strings.Repeat("x", 17<<20))
	d.refused("more than", "network_rules", bad...)
	// A VM that is not here is a failure, not an error of the plugin.
	d.want("false", "default_network_rules", "vmName", "i-9-9-VM", "vmIP", "10.1.1.9", "vmMAC", mac2.String(), "vmID", "9", "secIps", "0;")
	d.want("false", "default_network_rules_systemvm", "vmName", "r-9-VM")
}

// R17: an empty list, numbers of protocols and what is unexpected make the stock
// plugin return nothing.
func TestFaultR17(t *testing.T) {
	d := newDom0(t)
	d.put("i-2-3-VM", "1", mac1)
	d.want("true", "default_network_rules", defaults(mac1, "10.1.1.3", "")...)
	d.want("true", "network_rules", rules("I:47;0;0;0.0.0.0/0,NEXT ", "1")...)
	if e := d.Backend.Ruleset().Groups["cloudstack/i-2-3-VM"].Entries; len(e) == 0 || e[0].Protocol != 47 && e[len(e)-1].Protocol != 47 {
		t.Errorf("%v", e)
	}
}

// R24: deflated rules fail in the stock plugin for Python 3; plain ones are read
// as well.
func TestFaultR24(t *testing.T) {
	d := newDom0(t)
	d.put("i-2-3-VM", "1", mac1)
	d.want("true", "network_rules", rules("I:tcp;22;22;10.0.0.0/8,NEXT ", "1")...) // also the only call after a migration
	flat := rules("", "2")
	flat[len(flat)-3], flat[len(flat)-1] = "false", "I:tcp;23;23;10.0.0.0/8,NEXT "
	flat[11] = "1123456789abcdef0123456789abcdef"
	d.want("true", "network_rules", flat...)
	if e := d.Backend.Ruleset().Groups["cloudstack/i-2-3-VM"].Entries; len(e) != 1 || e[0].Span.First != 23 {
		t.Errorf("%v", e)
	}
}

// What is not ours goes to the stock plugin, as it came.
func TestHandOver(t *testing.T) {
	d := newDom0(t)
	argument := request("setDNATRule", "a", "b")
	if out, code := d.run(argument); out != failure("UNKNOWN_XENAPI_PLUGIN_FUNCTION", "setDNATRule") || code != 0 {
		t.Error(out, code)
	}
	stock := d.plugin + ".stock"
	if err := os.WriteFile(stock, []byte("#!/bin/sh\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	var path string
	var argv, environ []string
	d.exec = func(p string, a, e []string) error {
		path, argv, environ = p, a, e
		return errors.New("it has returned")
	}
	out, code := d.run(argument)
	if path != stock || !cmp.Equal(argv, []string{d.plugin, argument}) || !cmp.Equal(environ, []string{"RINGWALL_CONFIG=" + d.Config()}) || code != 0 || !strings.Contains(out, "StockPlugin") {
		t.Error(path, argv, environ, out, code)
	}
}

// The built program hands over standard input, output and exit status.
func TestHandOverProcess(t *testing.T) {
	dir := t.TempDir()
	bin := filepath.Join(dir, "vmops")
	build := exec.Command("go", "build", "-o", bin, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=-buildvcs=false")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	place := filepath.Join(dir, "plugins", "vmops")
	script := "#!/bin/sh\necho \"$#:$1\"; cat; echo err >&2; exit 7\n"
	if err := errors.Join(os.Mkdir(filepath.Dir(place), 0o755), os.WriteFile(place, []byte(script), 0o755)); err != nil {
		t.Fatal(err)
	}
	run := func(args ...string) (string, string, int) {
		cmd := exec.Command(bin, args...)
		if len(args) == 1 {
			cmd = exec.Command(place, args...)
			cmd.Stdin = strings.NewReader("input")
		}
		var out, errOut bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &errOut
		cmd.Run()
		return out.String(), errOut.String(), cmd.ProcessState.ExitCode()
	}
	for range 2 {
		if out, errOut, code := run("install", "plugin", place); code != 0 || !strings.Contains(out, "kept as "+place+".stock") {
			t.Fatal(out, errOut, code)
		}
		argument := request("pingtest")
		if out, errOut, code := run(argument); out != "1:"+argument+"\ninput" || errOut != "err\n" || code != 7 {
			t.Errorf("%q %q %d", out, errOut, code)
		}
	}
	if out, errOut, code := run("uninstall", "plugin", place); code != 0 {
		t.Fatal(out, errOut, code)
	}
	b, err := os.ReadFile(place)
	if err != nil || string(b) != script {
		t.Errorf("%q %v", b, err)
	}
	if left, _ := filepath.Glob(place + ".*"); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

func FuzzCall(f *testing.F) {
	f.Add(request("network_rules", "vmName", "x"))
	f.Add("<methodCall><methodName>f</methodName><params><param><value>s</value></param><param><value><struct><member><name>a</name><value>b</value></member></struct></value></param></params></methodCall>")
	f.Add("<methodCall>")
	f.Add("<?xml version='1.0'?><!DOCTYPE x [<!ENTITY a \"b\">]><methodCall>&a;</methodCall>")
	f.Fuzz(func(t *testing.T, s string) {
		c, err := parseCall(s)
		if err != nil {
			if !errors.Is(err, core.ErrInvalid) {
				t.Errorf("%v", err)
			}
			return
		}
		if fn, ok := functions[c.function]; ok {
			if _, err := fn.calls(newArguments(c.args)); err != nil && !errors.Is(err, core.ErrInvalid) {
				t.Errorf("%v", err)
			}
		}
	})
}

// What cannot be read is answered, and changes nothing.
func TestMalformed(t *testing.T) {
	d := newDom0(t)
	for _, s := range []string{"<", "<methodCall></methodCall>", "<methodCall><methodName>network_rules</methodName></methodCall>",
		strings.Replace(request("destroy_network_rules_for_vm", "vmName", "x"), "<string>x</string>", "<array><data/></array>", 1)} {
		if out, code := d.run(s); code != 0 || !strings.HasPrefix(out, strings.SplitN(failure("XENAPI_PLUGIN_FAILURE", "", "InvalidCall"), "</data>", 2)[0]) {
			t.Errorf("%q: %d %s", s, code, out)
		}
	}
	if _, err := os.Stat(filepath.Join(d.Dir, "state")); err == nil {
		t.Error("it has made a state")
	}
}
