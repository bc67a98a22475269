package cloudstack_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ringwall/ringwall/conformance/lab"
	"github.com/ringwall/ringwall/conformance/lab/labtest"
	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/core/api"
	"github.com/ringwall/ringwall/core/source/cloudstack"
)

const ssh = "I:tcp;22;22;0.0.0.0/0,NEXT;"

// inHost runs a program in the host's namespace and gives what it prints.
func (r *rig) inHost(argv ...string) string {
	r.t.Helper()
	var out bytes.Buffer
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Stdout, cmd.Stderr = &out, &out
	labtest.Check(r.t, r.host.Do(cmd.Start))
	if err := cmd.Wait(); err != nil {
		r.t.Fatalf("%q: %v: %s", argv, err, &out)
	}
	return out.String()
}

// TestFaultR1: no moment of reprogramming is open, and none interrupts what is
// allowed before and after.
func TestFaultR1(t *testing.T) {
	r := newRig(t, rigOptions{})
	a, b := r.bootLoud(1), r.bootLoud(2)
	a.program(1, "")
	text := func(i int) string { // many rules, others each time; 6000 always, 6001 never
		var s strings.Builder
		s.WriteString("I:udp;6000;6000;0.0.0.0/0,NEXT;")
		for j := range 100 {
			fmt.Fprintf(&s, "I:tcp;%d;%d;10.%d.0.0/16,NEXT;E:udp;%d;%d;10.0.0.0/8,NEXT;", 1000+i+j, 1000+i+j, j, 7000+j, 7000+j)
		}
		return s.String()
	}
	b.program(1, text(0))
	allowed := labtest.Must(lab.StartFlood(t.Context(), lab.FloodSpec{From: a, To: b, Service: lab.UDP(6000), Rate: 1000}))(t)
	denied := r.flood(a, b, 6001)
	held := r.flood(b, a, 6001) // out of b, which has egress rules
	for i := range 30 {
		r.must(b.rules(2+i, text(i%2))...)
	}
	if s := allowed.Stop(); s.LostTotal() > 0 || s.Received < 100 {
		t.Errorf("allowed: %s", s)
	}
	denied(0)
	held(0)
}

// flood sends datagrams that must not arrive until the result is asked for.
func (r *rig) flood(from, to *guest, port uint16) (arrived func(most int)) {
	r.t.Helper()
	in, err := to.ListenPacket(r.t.Context(), "udp4", netip.AddrPortFrom(to.Addr(core.IPv4), port).String())
	labtest.Check(r.t, err)
	out, err := from.Dial(r.t.Context(), "udp4", netip.AddrPortFrom(to.Addr(core.IPv4), port).String())
	labtest.Check(r.t, err)
	done, sent := make(chan struct{}), make(chan int)
	go func() {
		n := 0
		for tick := time.NewTicker(time.Millisecond); ; n++ {
			select {
			case <-done:
				tick.Stop()
				out.Close()
				sent <- n
				return
			case <-tick.C:
				_, _ = out.Write([]byte("x"))
			}
		}
	}()
	return func(most int) {
		r.t.Helper()
		close(done)
		n := <-sent
		got := 0
		labtest.Check(r.t, in.SetReadDeadline(time.Now().Add(100*time.Millisecond)))
		for buf := make([]byte, 10); ; got++ {
			if _, _, err := in.ReadFrom(buf); err != nil {
				break
			}
		}
		in.Close()
		if n < 50 || got > most {
			r.t.Errorf("port %d from %s to %s: %d sent, %d arrived, want at most %d", port, from.name, to.name, n, got, most)
		}
	}
}

// TestFaultR2: an error in the middle changes nothing, says so, and is not
// taken for success.
func TestFaultR2(t *testing.T) {
	r := newRig(t, rigOptions{})
	a, out := r.boot(1, 1), r.outside.Port(0)
	a.program(1, ssh+"E:tcp;443;443;0.0.0.0/0,NEXT;")
	for _, bad := range []string{"I:icmp;300;0;0.0.0.0/0,NEXT;", "I:tcp;x;1;0.0.0.0/0,NEXT;", "E:udp;5;4;0.0.0.0/0,NEXT;"} {
		if res := r.call(a.rules(2, "I:tcp;80;80;0.0.0.0/0,NEXT;"+bad)...); res.code == 0 || res.stdout != "" || strings.Count(res.stderr, "\n") != 1 {
			t.Errorf("%s: %+v", bad, res)
		}
	}
	if seq := r.logs()[a.name]; seq != "1" {
		t.Errorf("sequence number %s", seq)
	}
	in := between(out, a.Port(0))
	r.send(
		probe{"the old rule", out, a.Port(0), in.SYN(1, 22), true},
		probe{"the new rule", out, a.Port(0), in.SYN(1, 80), false},
		probe{"egress is as it was", a.Port(0), out, in.Reverse().SYN(1, 443), true},
		probe{"and not open", a.Port(0), out, in.Reverse().SYN(1, 25), false},
	)
}

// TestFaultR3: what is not in force is told: by the exit status and by the
// number, so that the server tries again.
func TestFaultR3(t *testing.T) {
	r := newRig(t, rigOptions{})
	a := r.boot(1, 1)
	for _, args := range [][]string{
		a.rules(1, ""), // nothing is known of the VM
		{"add_network_rules", "--vmname", a.name},
		(&guest{r: r, n: 9, name: fmt.Sprintf("i-%d-9-VM", account)}).defaults(0), // it does not run here
		a.defaults(0, "--vmmac=nonsense"),
		{"network_rules_vmSecondaryIp", "--vmname", a.name, "--vmmac", mac(1, 0).String(), "--nicsecips", "10.1.0.77", "--action=-A"},
	} {
		if res := r.call(args...); res.code != 1 || res.stderr == "" {
			t.Errorf("%q: %+v", args, res)
		}
	}
	if seq := r.logs()[a.name]; seq != "-1" {
		t.Errorf("sequence number %q", seq)
	}
	a.program(4, ssh)
	if seq := r.logs()[a.name]; seq != "4" {
		t.Errorf("sequence number %q", seq)
	}
}

// TestFaultR4: a call waits for the stock script's lock and never goes on
// without it; the lock of xtables is none of its business.
func TestFaultR4(t *testing.T) {
	r := newRig(t, rigOptions{})
	a := r.boot(1, 1)
	f, err := os.OpenFile(filepath.Join(r.dir, "lock"), os.O_WRONLY|os.O_CREATE, 0o644)
	labtest.Check(t, err)
	defer f.Close()
	labtest.Check(t, unix.Flock(int(f.Fd()), unix.LOCK_EX))
	ended := make(chan result, 1)
	cmd := r.command(t.Context(), a.defaults(0)...)
	go func() { ended <- run(cmd) }()
	select {
	case res := <-ended:
		t.Errorf("it went on without the lock: %+v", res)
	case <-time.After(time.Second):
	}
	if seq := r.logs()[a.name]; seq != "-1" { // which needs no lock
		t.Errorf("sequence number %q", seq)
	}
	labtest.Check(t, unix.Flock(int(f.Fd()), unix.LOCK_UN))
	if res := <-ended; res.code != 0 {
		t.Errorf("%+v", res)
	}
}

// TestFaultR5: a NIC without IPv4 and a bridge without an uplink are filtered
// like any.
func TestFaultR5(t *testing.T) {
	r := newRig(t, rigOptions{})
	r.host.AddBridge(lab.BridgeSpec{Name: "cloudbr7"})
	spec := r.spec(1, 1, true)
	spec.Ports[0].Bridge, spec.Ports[0].Addresses = "cloudbr7", spec.Ports[0].Addresses[1:]
	a := r.add(spec, 1, 1)
	spec = r.spec(2, 1, true)
	spec.Ports[0].Bridge = "cloudbr7"
	b := r.add(spec, 2, 1)
	default6 := func(g *guest) []string {
		return []string{"default_network_rules", "--vmname", g.name, "--vmid", "1", "--vmip6", addr6(g.n, 0).String(), "--vmmac", mac(g.n, 0).String(),
			"--vif", device(g.n, 0), "--brname", "cloudbr7", "--nicsecips", "0;", "--isFirstNic"}
	}
	r.must(default6(a)...)
	r.must("add_network_rules", "--vmname", a.name, "--vmid", "1", "--sig", "aa", "--seq", "1", "--rules", "I:tcp;22;22;::/0,NEXT;")
	r.must(default6(b)...)
	r.must("add_network_rules", "--vmname", b.name, "--vmid", "2", "--sig", "aa", "--seq", "1")
	to := lab.FlowBetween(b.Port(0), a.Port(0), core.IPv6)
	v4 := to
	v4.Src, v4.Dst = addr(2, 0), addr(1, 0)
	r.send(
		probe{"allowed", b.Port(0), a.Port(0), to.SYN(1, 22), true},
		probe{"not allowed", b.Port(0), a.Port(0), to.SYN(1, 23), false},
		probe{"IPv4 has nobody", b.Port(0), a.Port(0), v4.SYN(1, 22), false},
	)
	if got := r.logs(); got[a.name] != "1" || got[b.name] != "1" {
		t.Errorf("%v", got)
	}
}

// TestFaultR6: calls that come again add nothing.
func TestFaultR6(t *testing.T) {
	r := newRig(t, rigOptions{})
	a := r.boot(1, 2)
	a.program(1, ssh)
	before := strings.Count(r.inHost("nft", "list", "ruleset"), "\n")
	for range 10 {
		for i := range 2 {
			r.must(a.defaults(i)...)
			r.must(a.defaults(i, "--check")...)
		}
		r.must(a.rules(1, ssh)...)
	}
	if after := strings.Count(r.inHost("nft", "list", "ruleset"), "\n"); after != before || before < 50 {
		t.Errorf("%d lines of rules became %d", before, after)
	}
	r.inHost("nft", "delete table ip6 ringwall") // a part that nothing refers to
	to := lab.FlowBetween(r.outside.Port(0), a.Port(0), core.IPv6)
	if !r.wait(20*time.Second, func() bool { return strings.Contains(r.inHost("nft", "list", "tables"), "ip6 ringwall") }) {
		t.Fatal("it was not put back")
	}
	r.send(probe{"IPv6 out works again", a.Port(0), r.outside.Port(0), to.Reverse().SYN(1, 80), true})
}

// TestFaultR7: a bridge is not another whose name begins alike.
func TestFaultR7(t *testing.T) {
	r := newRig(t, rigOptions{})
	r.host.AddBridge(lab.BridgeSpec{Name: "cloudbr0-100"})
	plain := func(n int) *guest { // on a bridge that no call has named
		spec := r.spec(n, 1, true)
		spec.Ports[0].Bridge = "cloudbr0-100"
		return r.add(spec, n, 1)
	}
	x, y := plain(3), plain(4)
	a := r.boot(1, 1)
	a.program(1, ssh)
	r.send(
		probe{"filtered on the one", r.outside.Port(0), a.Port(0), between(r.outside.Port(0), a.Port(0)).SYN(1, 23), false},
		probe{"untouched on the other", x.Port(0), y.Port(0), between(x.Port(0), y.Port(0)).SYN(1, 23), true},
	)
}

// TestFaultR8: what a VM leaves takes nothing of others along.
func TestFaultR8(t *testing.T) {
	r := newRig(t, rigOptions{})
	a := r.boot(1, 1)   // vnet4
	b := r.boot(10, 1)  // vnet40
	c := r.boot(100, 1) // vnet400
	for _, g := range []*guest{a, b, c} {
		g.program(1, ssh)
	}
	r.inHost("iptables", "-t", "nat", "-A", "PREROUTING", "-i", "vnet40", "-p", "tcp", "--dport", "80", "-j", "REDIRECT")
	r.must("destroy_network_rules_for_vm", "--vmname", a.name, "--vif", device(1, 0))
	r.must("cleanup_rules")
	if rules := r.inHost("iptables-save", "-t", "nat"); !strings.Contains(rules, "vnet40") {
		t.Errorf("a foreign rule is gone:\n%s", rules)
	}
	out := r.outside.Port(0)
	var probes []probe
	for _, g := range []*guest{b, c} {
		probes = append(probes,
			probe{g.name + " allowed", out, g.Port(0), between(out, g.Port(0)).SYN(1, 22), true},
			probe{g.name + " not allowed", out, g.Port(0), between(out, g.Port(0)).SYN(1, 23), false})
	}
	r.send(append(probes, probe{"the one that left", out, a.Port(0), between(out, a.Port(0)).SYN(1, 22), false})...)
}

// TestFaultR9: rules that another program flushes come back by themselves.
func TestFaultR9(t *testing.T) {
	r := newRig(t, rigOptions{})
	a, out := r.boot(1, 1), r.outside.Port(0)
	a.program(5, ssh)
	for _, flush := range [][]string{{"nft", "flush", "ruleset"}, {"iptables", "-F"}, {"nft", "flush table bridge ringwall"}} {
		r.inHost(flush...)
		settled := func() bool { return r.verified() && r.logs()[a.name] == "5" }
		if !r.wait(20*time.Second, settled) {
			t.Fatalf("after %q: not repaired", flush)
		}
		in := between(out, a.Port(0))
		r.send(probe{"allowed", out, a.Port(0), in.SYN(1, 22), true}, probe{"not allowed", out, a.Port(0), in.SYN(1, 23), false})
	}
}

func (r *rig) client() *api.Client {
	r.t.Helper()
	c := labtest.Must(api.Dial(r.t.Context(), api.ClientConfig{Path: filepath.Join(r.dir, "s"), Wait: 20 * time.Second}))(r.t)
	r.t.Cleanup(c.Close)
	return c
}

// verified says whether the kernel holds what is wanted.
func (r *rig) verified() bool {
	points, err := r.client().Verify(context.Background(), api.Empty{})
	return err == nil && len(points) == 1 && points[0].Wanted == points[0].Enforced && len(points[0].Differences) == 0
}

// TestFaultR10: --check brings back whatever is missing, not one rule.
func TestFaultR10(t *testing.T) {
	r := newRig(t, rigOptions{})
	a, out := r.boot(1, 1), r.outside.Port(0)
	a.program(5, ssh)
	r.kill() // nobody else may mend it meanwhile
	r.inHost("nft", "flush", "ruleset")
	r.start()
	r.must(a.defaults(0, "--check")...)
	in, in6 := between(out, a.Port(0)), lab.FlowBetween(out, a.Port(0), core.IPv6)
	r.send(
		probe{"rules", out, a.Port(0), in.SYN(1, 22), true},
		probe{"IPv4", out, a.Port(0), in.SYN(1, 23), false},
		probe{"IPv6", out, a.Port(0), in6.SYN(1, 22), false},
		probe{"sets of addresses", a.Port(0), out, between(a.Port(0), out).SYN(1, 80), true},
	)
	if seq := r.logs()[a.name]; seq != "5" {
		t.Errorf("sequence number %s", seq)
	}
}

// TestFaultR11: unplugging a NIC takes all of it and nothing else, without an
// IPv4 address too.
func TestFaultR11(t *testing.T) {
	r := newRig(t, rigOptions{})
	a, out := r.boot(1, 2), r.outside.Port(0)
	a.program(5, "I:tcp;22;22;0.0.0.0/0,::/0,NEXT;")
	r.must("destroy_network_rules_for_vm", "--vmname", a.name, "--vmmac", mac(1, 1).String(), "--vif", device(1, 1), "--nicsecips", "0;")
	first, second := between(out, a.Port(0)), between(out, a.Port(1))
	r.send(
		probe{"the first NIC", out, a.Port(0), first.SYN(1, 22), true},
		probe{"the second", out, a.Port(1), second.SYN(1, 22), false},
		probe{"the second, IPv6", out, a.Port(1), lab.FlowBetween(out, a.Port(1), core.IPv6).SYN(1, 22), false},
		probe{"out of the second", a.Port(1), out, second.Reverse().UDP(1, 53, "x"), false},
	)
	if rules := r.inHost("nft", "list", "ruleset"); strings.Contains(rules, addr(1, 1).String()) || strings.Contains(rules, addr6(1, 1).String()) {
		t.Error("addresses of the second NIC are left")
	}
	if seq := r.logs()[a.name]; seq != "5" {
		t.Errorf("sequence number %s", seq)
	}
}

// TestFaultR12: the server's reboot keeps the rules in force, and asks for them.
func TestFaultR12(t *testing.T) {
	r := newRig(t, rigOptions{})
	a, out := r.boot(1, 1), r.outside.Port(0)
	a.program(5, ssh)
	r.must(a.defaults(0)...)
	r.send(probe{"allowed", out, a.Port(0), between(out, a.Port(0)).SYN(1, 22), true})
	if seq := r.logs()[a.name]; seq != "-1" {
		t.Errorf("sequence number %s", seq)
	}
}

// TestFaultR13: whoever gets a device that a crashed VM had, has it alone.
func TestFaultR13(t *testing.T) {
	r := newRig(t, rigOptions{})
	a, out := r.boot(1, 1), r.outside.Port(0)
	a.program(5, "I:all;0;0;0.0.0.0/0,NEXT;")
	r.end(a.Station, a.name)
	spec := r.spec(2, 1, true)
	spec.Ports[0].Device = device(1, 0)
	b := r.add(spec, 2, 1)
	args := b.defaults(0, "--vif="+device(1, 0))
	r.must(args...)
	r.must(b.rules(1, ssh)...)
	former := between(out, b.Port(0))
	former.Dst = addr(1, 0)
	r.send(
		probe{"its own rule", out, b.Port(0), between(out, b.Port(0)).SYN(1, 22), true},
		probe{"the former owner's", out, b.Port(0), between(out, b.Port(0)).SYN(1, 23), false},
		probe{"to the former owner", out, b.Port(0), former.SYN(1, 22), false},
	)
	if got := r.logs(); got[b.name] != "1" {
		t.Errorf("%v", got)
	}
}

// TestFaultR14: what is cleaned up is gone, for system VMs too, and the next
// round finds nothing.
func TestFaultR14(t *testing.T) {
	r := newRig(t, rigOptions{})
	a := r.boot(1, 1)
	a.program(5, ssh)
	router := lab.StationSpec{Name: "router", NetnsName: fmt.Sprintf("r-%d-VM", account), Mute: true,
		Ports: []lab.PortSpec{{Bridge: "cloudbr0", Device: "vnet900", MAC: mac(200, 0), Addresses: prefixes("10.1.200.1/16")}}}
	s := r.host.AddStation(router)
	if !r.wait(5*time.Second, func() bool {
		return r.call("default_network_rules_systemvm", "--vmname", router.NetnsName, "--localbrname", "cloud0").code == 0
	}) {
		t.Fatal(r.call("default_network_rules_systemvm", "--vmname", router.NetnsName, "--localbrname", "cloud0"))
	}
	out := r.outside.Port(0)
	r.send(probe{"the router hears everything", out, s.Port(0), between(out, s.Port(0)).SYN(1, 1), true})
	r.end(a.Station, a.name)
	r.end(s, router.NetnsName)
	// An empty list is believed after a while: libvirt may have just started.
	if !r.wait(20*time.Second, func() bool { return r.call("cleanup_rules").code == 0 }) {
		t.Fatal(r.call("cleanup_rules"))
	}
	r.must("cleanup_rules")
	rules := r.inHost("nft", "list", "ruleset")
	for _, left := range []string{device(1, 0), addr(1, 0).String(), "vnet900"} {
		if strings.Contains(rules, left) {
			t.Errorf("%s is left", left)
		}
	}
	files, err := filepath.Glob(filepath.Join(r.dir, "cloud", a.name+"*"))
	if err != nil || len(files) > 0 {
		t.Errorf("files left: %v, %v", files, err)
	}
}

// TestFaultR15: no call starts a program, whatever the number of rules.
func TestFaultR15(t *testing.T) {
	r := newRig(t, rigOptions{more: "  mode: standalone\n", idle: true})
	a := r.boot(1, 1)
	if n := r.execs(a.defaults(0)...); n != 0 {
		t.Errorf("default_network_rules started %d programs", n)
	}
	for i, text := range []string{"I:tcp;22;22;10.0.0.0/8,NEXT;", many(1000)} {
		if n := r.execs(a.rules(1+i, text)...); n != 0 {
			t.Errorf("add_network_rules with %d bytes of rules started %d programs", len(text), n)
		}
	}
	in := between(r.outside.Port(0), a.Port(0))
	in.Src = netip.MustParseAddr("10.1.250.9")
	r.send(probe{"the last of a thousand", r.outside.Port(0), a.Port(0), in.SYN(1, 22), true})
}

// many is one rule with as many CIDRs, the last of which is the outside's.
func many(n int) string {
	var s strings.Builder
	s.WriteString("I:tcp;22;22;")
	for i := range n - 1 {
		fmt.Fprintf(&s, "172.%d.%d.%d/32,", 16+i>>16, i>>8&255, i&255)
	}
	return s.String() + "10.1.250.9/32,NEXT;"
}

// execs counts the programs that a call starts, itself left out, in whatever
// thread or child of it.
func (r *rig) execs(args ...string) int {
	r.t.Helper()
	trace := filepath.Join(r.dir, "trace")
	cmd := exec.Command("strace", append([]string{"-f", "-qq", "-e", "trace=execve,execveat", "-o", trace, filepath.Join(r.bin, "security_group")}, args...)...)
	cmd.Env = r.environ()
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	labtest.Check(r.t, r.host.Do(cmd.Start))
	if err := cmd.Wait(); err != nil {
		r.t.Fatalf("%q: %v: %s", args, err, &out)
	}
	text, err := os.ReadFile(trace)
	labtest.Check(r.t, err)
	n := strings.Count(string(text), "execve")
	if n == 0 {
		r.t.Fatal("the trace is empty")
	}
	return n - 1
}

// TestFaultR16: nothing is lost where a set of the stock script's is full.
func TestFaultR16(t *testing.T) {
	r := newRig(t, rigOptions{})
	a, out := r.boot(1, 1), r.outside.Port(0)
	a.program(1, "")
	_, err := r.client().CloudStack(t.Context(), cloudstack.Call{Command: cloudstack.AddNetworkRules, VM: a.name, VMID: "1", Signature: "aa", Sequence: 2, Rules: many(70_000)})
	labtest.Check(t, err)
	in := between(out, a.Port(0))
	r.send(probe{"the last of 70,000", out, a.Port(0), in.SYN(1, 22), true}, probe{"another port", out, a.Port(0), in.SYN(1, 23), false})
	_, err = r.client().CloudStack(t.Context(), cloudstack.Call{Command: cloudstack.AddNetworkRules, VM: a.name, VMID: "1", Signature: "aa", Sequence: 3,
		Rules: "I:tcp;1;1;" + strings.Repeat("10.0.0.1/32,", core.MaxCIDRs+1) + "NEXT;"})
	if !errors.Is(err, core.ErrInvalid) {
		t.Errorf("more than a rule holds: %v", err)
	}
	r.send(probe{"the rules are as before", out, a.Port(0), in.SYN(2, 22), true})
}
