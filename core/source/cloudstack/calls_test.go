package cloudstack_test

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/core/coretest"
	"github.com/ringwall/ringwall/core/source/cloudstack"
)

// TestStart: default rules hold egress until the rules come.
func TestStart(t *testing.T) {
	onHost(t, setup{}, func(h *host) {
		h.adapter.Put(vm(7, "3", mac(7, 0)))
		h.call(defaults(7, 0, nil))
		h.logged(7, "7,10.1.0.7,3,_initial_,-1")
		h.expect(core.Egress, 7, 0, 80, false)
		h.expect(core.Egress, 7, 0, 53, true)
		h.expect(core.Ingress, 7, 0, 22, false)
		h.call(rules(7, 5, ssh))
		h.logged(7, "7,10.1.0.7,3,00000000000000000000000000000005,5")
		h.expect(core.Egress, 7, 0, 80, true)
		h.expect(core.Ingress, 7, 0, 22, true)
		h.call(rules(7, 6, "E:tcp;443;443;0.0.0.0/0,NEXT;"))
		h.expect(core.Egress, 7, 0, 80, false)
		h.expect(core.Egress, 7, 0, 443, true)
		h.expect(core.Ingress, 7, 0, 22, false)
	})
}

func TestBeforeRulesAllow(t *testing.T) {
	onHost(t, setup{settings: cloudstack.Settings{AllowBeforeRules: true}}, func(h *host) {
		h.adapter.Put(vm(7, "3", mac(7, 0)))
		h.call(defaults(7, 0, nil))
		h.expect(core.Egress, 7, 0, 80, true)
		h.expect(core.Ingress, 7, 0, 22, false)
	})
}

// TestRulesNameNoNIC: the call with rules carries interface 0, which CloudStack
// may not filter: it binds and makes nothing.
func TestRulesNameNoNIC(t *testing.T) {
	onHost(t, setup{}, func(h *host) {
		other := core.MAC{2, 9, 9, 9, 9, 9}
		in := vm(7, "3", other, mac(7, 1))
		in.VM.NICs[0].Binding = core.Binding{Bridge: "cloudbr9", Devices: []string{"vnet999"}}
		h.adapter.Put(in)
		h.call(defaults(7, 1, func(c *cloudstack.Call) { c.FirstNIC = true }))
		h.call(rules(7, 5, ssh))
		h.expect(core.Ingress, 7, 1, 22, true)
		if diff := cmp.Diff([]string{"10.1.1.7"}, h.addresses(7, 1)); diff != "" {
			t.Error(diff)
		}
		if r := h.backend.Ruleset(); len(r.NICs) != 1 || r.Options.ManagesBridge("cloudbr9") {
			t.Errorf("%+v", r)
		}
		h.fails(rules(8, 5, ssh), "default_network_rules has to come first")
		if _, known := h.logs()[name(8)]; known {
			t.Error("a VM was made of a call with rules")
		}
	})
}

// TestCheckKeeps: --check never resets rules, number or secondary addresses,
// with --isFirstNic neither.
func TestCheckKeeps(t *testing.T) {
	onHost(t, setup{}, func(h *host) {
		h.adapter.Put(vm(7, "3", mac(7, 0), mac(7, 1)))
		h.call(defaults(7, 0, nil))
		h.call(defaults(7, 1, nil))
		h.call(rules(7, 5, ssh))
		h.call(cloudstack.Call{Command: cloudstack.SecondaryIP, VM: name(7), MAC: mac(7, 0), Secondary: []netip.Prefix{netip.MustParsePrefix("10.1.0.99/32")}})
		h.call(defaults(7, 0, check))
		h.call(defaults(7, 1, check))
		h.logged(7, "7,10.1.0.7,3,00000000000000000000000000000005,5")
		h.expect(core.Ingress, 7, 0, 22, true)
		h.expect(core.Ingress, 7, 1, 22, true)
		if diff := cmp.Diff([]string{"10.1.0.7", "10.1.0.99"}, h.addresses(7, 0)); diff != "" {
			t.Error(diff)
		}
		if diff := cmp.Diff([]string{"10.1.1.7"}, h.addresses(7, 1)); diff != "" {
			t.Error(diff)
		}
	})
}

// TestReboot: the server's reboot keeps the domain and the rules; a new domain
// starts anew. Both are reported with -1.
func TestReboot(t *testing.T) {
	onHost(t, setup{}, func(h *host) {
		h.adapter.Put(vm(7, "3", mac(7, 0)))
		h.call(defaults(7, 0, nil))
		h.call(rules(7, 5, ssh))
		h.call(defaults(7, 0, nil))
		h.logged(7, "7,10.1.0.7,3,_initial_,-1")
		h.expect(core.Ingress, 7, 0, 22, true)
		h.call(rules(7, 5, ssh)) // the server has not raised it
		h.logged(7, "7,10.1.0.7,3,00000000000000000000000000000005,5")

		h.adapter.Put(vm(7, "4", mac(7, 0)))
		h.call(defaults(7, 0, nil))
		h.logged(7, "7,10.1.0.7,4,_initial_,-1")
		h.expect(core.Ingress, 7, 0, 22, false)
		h.expect(core.Egress, 7, 0, 80, false)
		h.call(rules(7, 1, ssh)) // a fresh start forgets the number
		h.logged(7, "7,10.1.0.7,4,00000000000000000000000000000001,1")
	})
}

// TestSequence: a lower number is refused once, and accepted when it comes
// again after half a minute.
func TestSequence(t *testing.T) {
	onHost(t, setup{}, func(h *host) {
		h.adapter.Put(vm(7, "3", mac(7, 0)))
		h.call(defaults(7, 0, nil))
		h.call(rules(7, 20, ssh))
		const at20 = "7,10.1.0.7,3,00000000000000000000000000000014,20"
		for _, wait := range []time.Duration{0, time.Second, 28 * time.Second} {
			sleep(wait)
			if a := h.call(rules(7, 5, "")); len(a.Warnings) != 1 {
				t.Errorf("after %s: %+v", wait, a)
			}
			h.logged(7, at20)
			h.expect(core.Ingress, 7, 0, 22, true)
		}
		h.restart(setup{}) // the refusal is remembered
		sleep(time.Second)
		h.call(rules(7, 5, ""))
		h.logged(7, "7,10.1.0.7,3,00000000000000000000000000000005,5")
		h.expect(core.Ingress, 7, 0, 22, false)

		h.call(rules(7, 4, ssh)) // a late answer
		sleep(time.Second)
		h.call(rules(7, 6, "")) // the server goes on
		sleep(time.Minute)
		h.call(rules(7, 4, ssh))
		h.logged(7, "7,10.1.0.7,3,00000000000000000000000000000006,6")
		h.call(rules(7, 6, ssh)) // equal is no lower
		h.expect(core.Ingress, 7, 0, 22, true)
	})
}

func TestSecondary(t *testing.T) {
	onHost(t, setup{}, func(h *host) {
		h.adapter.Put(vm(7, "3", mac(7, 0)))
		second := func(addr string, remove bool) cloudstack.Call {
			list, err := cloudstack.ParseSecondary(addr)
			if err != nil {
				t.Fatal(err)
			}
			return cloudstack.Call{Command: cloudstack.SecondaryIP, VM: name(7), MAC: mac(7, 0), Secondary: list, Remove: remove}
		}
		h.fails(second("10.1.0.8", false), "default_network_rules has to come first")
		h.call(second("10.1.0.8", true))
		h.call(defaults(7, 0, func(c *cloudstack.Call) { c.Secondary = second("10.1.0.9;2001:db8::9;", false).Secondary }))
		h.call(second("10.1.0.8", false))
		h.call(second("10.1.0.8", false))
		if diff := cmp.Diff([]string{"10.1.0.7", "10.1.0.8", "10.1.0.9", "2001:db8::9"}, h.addresses(7, 0)); diff != "" {
			t.Error(diff)
		}
		b, err := os.ReadFile(filepath.Join(h.files(), name(7)+".ip"))
		if want := "i-2-7-VM,10.1.0.9;2001:db8::9;10.1.0.8;,7\n"; err != nil || string(b) != want {
			t.Errorf("%q, %v; want %q", b, err, want)
		}
		h.call(second("10.1.0.9", true))
		h.call(second("10.1.0.7", true)) // the primary is not secondary
		if diff := cmp.Diff([]string{"10.1.0.7", "10.1.0.8", "2001:db8::9"}, h.addresses(7, 0)); diff != "" {
			t.Error(diff)
		}
	})
}

// TestDestroy: the call comes before a shutdown, which may take long or fail.
func TestDestroy(t *testing.T) {
	destroy := cloudstack.Call{Command: cloudstack.DestroyRules, VM: name(7)}
	onHost(t, setup{}, func(h *host) {
		h.call(destroy) // unknown
		h.adapter.Put(vm(7, "3", mac(7, 0), mac(7, 1)))
		h.call(defaults(7, 0, nil))
		h.call(defaults(7, 1, nil))
		h.call(rules(7, 5, ssh))
		one := destroy
		one.MAC = mac(7, 1) // without an address: still one NIC
		h.call(one)
		h.expect(core.Ingress, 7, 0, 22, true)
		h.expect(core.Ingress, 7, 1, 22, false)
		h.logged(7, "7,10.1.0.7,3,00000000000000000000000000000005,5")

		h.call(destroy)
		h.expect(core.Ingress, 7, 0, 22, true) // it is shutting down
		if _, err := os.Stat(filepath.Join(h.files(), name(7)+".log")); err == nil {
			t.Error("the log is still there")
		}
		if got := h.logs()[name(7)]; got != "7,10.1.0.7,3,_initial_,-1" {
			t.Errorf("a VM that leaves and runs is reported as %q", got)
		}
		h.call(defaults(7, 0, check)) // the shutdown failed: the server sends again
		h.call(rules(7, 2, ssh))      // and destroy has forgotten the number
		h.logged(7, "7,10.1.0.7,3,00000000000000000000000000000002,2")

		h.call(destroy)
		h.call(cloudstack.Call{Command: cloudstack.CleanupRules})
		h.expect(core.Ingress, 7, 0, 22, false)
		h.expect(core.Egress, 7, 0, 53, false)

		h.call(defaults(7, 0, nil))
		h.call(destroy)
		h.adapter.Stop("uuid-7")
		sleep(time.Second)
		if s := h.engine.Snapshot(); len(s.VMs)+len(s.Groups) != 0 {
			t.Errorf("left: %v %v", s.VMs, s.Groups)
		}
	})
}

// TestCrash: a VM that ends without a call leaves nothing.
func TestCrash(t *testing.T) {
	onHost(t, setup{}, func(h *host) {
		h.adapter.Put(vm(7, "3", mac(7, 0)))
		h.call(defaults(7, 0, nil))
		h.call(rules(7, 5, ssh))
		h.adapter.Stop("uuid-7")
		sleep(time.Second)
		if s := h.engine.Snapshot(); len(s.VMs)+len(s.Groups) != 0 {
			t.Errorf("left: %v %v", s.VMs, s.Groups)
		}
		if _, err := os.Stat(filepath.Join(h.files(), name(7)+".log")); err == nil {
			t.Error("the log is still there")
		}
		if text := h.call(cloudstack.Call{Command: cloudstack.RuleLogs}).Text; text != "" {
			t.Errorf("%q", text)
		}
	})
}

// TestReports: whatever is not in force is -1, and no VM is left out.
func TestReports(t *testing.T) {
	onHost(t, setup{}, func(h *host) {
		h.adapter.Put(vm(7, "3", mac(7, 0)))
		h.adapter.Put(vm(8, "4", mac(8, 0)))
		router := vm(9, "5", mac(9, 0))
		router.VM.Name = "r-9-VM"
		h.adapter.Put(router)
		h.call(defaults(7, 0, nil))
		h.call(rules(7, 5, ssh))
		want := map[string]string{name(7): "7,10.1.0.7,3,00000000000000000000000000000005,5", name(8): "8,,4,_initial_,-1"}
		if diff := cmp.Diff(want, h.logs()); diff != "" {
			t.Error(diff)
		}
		h.backend.RefuseGroup("cloudstack/"+name(7), coretest.ErrRefused)
		h.fails(rules(7, 6, ""), "refused by the fake kernel")
		h.logged(7, "7,10.1.0.7,3,_initial_,-1")
		h.expect(core.Ingress, 7, 0, 22, true) // the old rules are still in force
		h.backend.RefuseGroup("cloudstack/"+name(7), nil)
		sleep(2 * time.Minute)
		h.logged(7, "7,10.1.0.7,3,00000000000000000000000000000006,6")
	})
}

// TestBadInput changes nothing.
func TestBadInput(t *testing.T) {
	onHost(t, setup{}, func(h *host) {
		h.adapter.Put(vm(7, "3", mac(7, 0)))
		h.call(defaults(7, 0, nil))
		h.call(rules(7, 5, ssh))
		writes, revision := h.backend.Writes(), h.engine.Snapshot().Revision
		for _, c := range []cloudstack.Call{
			{},
			{Command: "format_disk"},
			{Command: cloudstack.DefaultNetworkRules, VM: name(7)},
			defaults(7, 0, func(c *cloudstack.Call) { c.VM = "../../etc/passwd" }),
			defaults(7, 0, func(c *cloudstack.Call) { c.VM = "a,b" }),
			defaults(7, 0, func(c *cloudstack.Call) { c.VMID = "7,8" }),
			defaults(7, 0, func(c *cloudstack.Call) { c.Bridge = "cloudbr*" }),
			defaults(7, 0, func(c *cloudstack.Call) { c.Device = "vnet0; reboot" }),
			defaults(7, 0, func(c *cloudstack.Call) { c.IP = netip.MustParseAddr("::1") }),
			defaults(7, 0, func(c *cloudstack.Call) { c.IP = netip.MustParseAddr("224.0.0.1") }),
			rules(7, 6, "I:tcp;x;22;0.0.0.0/0,NEXT;"),
			rules(7, 6, "I:$(reboot);0;0;0.0.0.0/0,NEXT;"),
			func() cloudstack.Call { c := rules(7, 6, ""); c.Signature = "a,b"; return c }(),
			{Command: cloudstack.DefaultSystemVM, VM: name(7)},
		} {
			if _, err := h.Call(context.Background(), c); !errors.Is(err, core.ErrInvalid) {
				t.Errorf("%+v: %v", c, err)
			}
		}
		if h.backend.Writes() != writes || h.engine.Snapshot().Revision != revision {
			t.Error("something changed")
		}
		h.logged(7, "7,10.1.0.7,3,00000000000000000000000000000005,5")
	})
}

// TestElsewhere: a call for a VM that does not run here fails.
func TestElsewhere(t *testing.T) {
	onHost(t, setup{}, func(h *host) {
		h.fails(defaults(7, 0, nil), "it does not run here")
		h.adapter.Put(vm(8, "3", mac(8, 1)))
		h.fails(defaults(8, 0, nil), "it does not run here") // it has no such NIC
	})
}

// TestSystemVM passes everything, on whatever NIC, and cloud0 is never ours.
func TestSystemVM(t *testing.T) {
	onHost(t, setup{}, func(h *host) {
		h.adapter.Put(vm(7, "3", mac(7, 0)))
		h.call(defaults(7, 0, nil))
		router := vm(9, "5", mac(9, 0), mac(9, 1), mac(9, 2))
		router.VM.Name = "r-9-VM"
		router.VM.NICs[1].Binding.Bridge = "cloud0"
		router.VM.NICs[2].Binding.Bridge = "control"
		h.adapter.Put(router)
		h.call(cloudstack.Call{Command: cloudstack.DefaultSystemVM, VM: "r-9-VM", LocalBridge: "control"})
		h.expect(core.Ingress, 9, 0, 22, true)
		if r := h.backend.Ruleset(); r.Options.ManagesBridge("cloud0") || r.Options.ManagesBridge("control") || len(r.NICs) != 2 {
			t.Errorf("%+v", r)
		}
		b, err := os.ReadFile(filepath.Join(h.files(), "r-9-VM.log"))
		if want := "r-9-VM,-1,_ignore_,5,_initial_,-1\n"; err != nil || string(b) != want {
			t.Errorf("%q, %v", b, err)
		}
		plugged := router
		plugged.VM.NICs = append(plugged.VM.NICs[:3:3], core.NIC{MAC: mac(9, 3), Binding: core.Binding{Bridge: "cloudbr0", Devices: []string{"vnet93"}}})
		h.adapter.Put(plugged) // without a call
		sleep(time.Second)
		h.expect(core.Ingress, 9, 3, 22, true)
		h.fails(cloudstack.Call{Command: cloudstack.DefaultSystemVM, VM: "v-1-VM"}, "does not run here")
	})
}

// TestNoAdapter: the calls' devices and bridges count; a device goes to who
// names it last.
func TestNoAdapter(t *testing.T) {
	onHost(t, setup{noAdapter: true}, func(h *host) {
		h.call(defaults(7, 0, nil))
		h.call(rules(7, 5, ssh))
		h.logged(7, "7,10.1.0.7,None,00000000000000000000000000000005,5")
		h.expect(core.Ingress, 7, 0, 22, true)
		h.call(defaults(8, 0, func(c *cloudstack.Call) { c.Device = device(7, 0) }))
		h.expect(core.Ingress, 7, 0, 22, false)
		h.expect(core.Ingress, 8, 0, 22, false)
		h.call(cloudstack.Call{Command: cloudstack.DestroyRules, VM: name(8)})
		if h.port(8, 0) != h.port(9, 0) {
			t.Error("nobody can tell whether it runs, and it is still there")
		}
		h.call(cloudstack.Call{Command: cloudstack.CleanupRules}) // there is no vnet70 here
		if s := h.engine.Snapshot(); len(s.VMs) != 0 {
			t.Errorf("%v", s.VMs)
		}
	})
}

func TestVerify(t *testing.T) {
	onHost(t, setup{}, func(h *host) {
		h.adapter.Put(vm(7, "3", mac(7, 0)))
		verify := cloudstack.Call{Command: cloudstack.VerifyRules, VM: name(7), IP: ip(7, 0), MAC: mac(7, 0)}
		exit := func(want int, change func(*cloudstack.Call)) {
			t.Helper()
			c := verify
			if change != nil {
				change(&c)
			}
			if a := h.call(c); a.Exit != want || (a.Text == "") != (want == 0) {
				t.Errorf("%+v, want exit %d", a, want)
			}
		}
		exit(1, nil)
		h.call(defaults(7, 0, nil))
		exit(0, nil)
		exit(2, func(c *cloudstack.Call) { c.IP = ip(8, 0) })
		exit(2, func(c *cloudstack.Call) { c.Secondary = []netip.Prefix{netip.MustParsePrefix("10.1.0.99/32")} })
		exit(5, func(c *cloudstack.Call) { c.MAC = mac(8, 0) })
		h.fails(cloudstack.Call{Command: cloudstack.PostDefaultRules, VM: name(7)}, "never calls it")
	})
}

// TestBridges: the first call that names one brings it under management, and
// the log says who is on it.
func TestRestartKeepsBridges(t *testing.T) {
	onHost(t, setup{}, func(h *host) {
		h.adapter.Put(vm(7, "3", mac(7, 0)))
		if h.backend.Ruleset().Options.ManagesBridge("cloudbr0") {
			t.Error("managed before any call")
		}
		h.call(defaults(7, 0, nil))
		h.adapter.Stop("uuid-7")
		h.restart(setup{})
		if !h.backend.Ruleset().Options.ManagesBridge("cloudbr0") {
			t.Error("not managed any more")
		}
	})
}

// TestHypervisorAway: what is in force stays, reports go on, and -1 where
// nobody knows.
func TestHypervisorAway(t *testing.T) {
	onHost(t, setup{}, func(h *host) {
		h.adapter.Put(vm(7, "3", mac(7, 0)))
		h.call(defaults(7, 0, nil))
		h.call(rules(7, 5, ssh))
		h.adapter.FailList(errors.New("libvirtd is away"))
		h.adapter.FailWatch(errors.New("libvirtd is away"))
		h.adapter.Disconnect()
		sleep(time.Minute)
		h.logged(7, "7,10.1.0.7,3,00000000000000000000000000000005,5")
		h.call(cloudstack.Call{Command: cloudstack.CanBridgeFirewall})
		h.restart(setup{})
		if got := h.logs()[name(7)]; !strings.HasSuffix(got, ",-1") {
			t.Errorf("reported as %q", got)
		}
		h.call(cloudstack.Call{Command: cloudstack.CanBridgeFirewall})
		h.fails(cloudstack.Call{Command: cloudstack.CleanupRules}, "not answered")
		h.adapter.FailList(nil)
		h.adapter.FailWatch(nil)
		sleep(2 * time.Minute)
		h.logged(7, "7,10.1.0.7,3,00000000000000000000000000000005,5")
	})
}
