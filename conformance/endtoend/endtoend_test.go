package endtoend

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ringwall/ringwall/conformance/lab"
	"github.com/ringwall/ringwall/conformance/lab/labtest"
	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/core/api"
	"github.com/ringwall/ringwall/core/engine"
	"github.com/ringwall/ringwall/docs/examples"
)

// TestLife is a host's life with ringwalld: it comes, is told what is wanted,
// changes, restarts, is disturbed, and goes. Each act looks at packets.
func TestLife(t *testing.T) {
	for name, run := range map[string]string{"in process": "in_process", "as plugins": "plugin"} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t, run)
			for _, act := range []struct {
				name string
				play func(*site, *testing.T)
			}{
				{"closed", (*site).closed}, {"apply", (*site).apply}, {"look", (*site).look}, {"attacks", (*site).attacks}, {"change", (*site).change},
				{"restart", (*site).restart}, {"reload", (*site).reload}, {"disturb", (*site).disturb}, {"delete", (*site).remove},
			} {
				if !t.Run(act.name, func(t *testing.T) { act.play(s, t) }) {
					t.Fatalf("ringwalld said:\n%s", &s.log)
				}
			}
		})
	}
}

func isWeb(name string) bool { return strings.HasPrefix(name, "web") }
func isDB(name string) bool  { return strings.HasPrefix(name, "db") }

// reach checks who reaches whom, in both families.
func (s *site) reach(t *testing.T, service lab.Service, allowed func(from, to string) bool) {
	t.Helper()
	nodes := []lab.Node{s.at["fabric"], s.at["web1"], s.at["db1"], s.at["db2"], s.at["mallory"]}
	m := lab.NewMatrix(nodes...)
	m.Wait = 250 * time.Millisecond
	for _, f := range core.Families {
		for _, from := range nodes {
			for _, to := range nodes {
				if from != to {
					m.Expect(from.Name(), to.Name(), service.Over(f), allowed(from.Name(), to.Name()))
				}
			}
		}
	}
	labtest.Verify(t, m)
}

// postgres is what the example says of port 5432: the databases hear web
// servers, and start nothing themselves.
func postgres(from, to string) bool { return isWeb(from) && isDB(to) || to == "fabric" && !isDB(from) }

// closed: without a policy no VM says or hears anything.
func (s *site) closed(t *testing.T) {
	s.start(t)
	s.reach(t, lab.TCP(5432), func(_, _ string) bool { return false })
	st := ask[api.Status](t, s, exitOK, "status")
	if len(st.NICs) != len(vms) || st.Hypervisor != "netns" || st.NICs[0].State != engine.Closed {
		t.Errorf("status is %+v", st)
	}
	s.must(t, []string{"status"}, "6 closed", "in sync")
	s.must(t, []string{"doctor"}, "br-tenant")
}

func (s *site) apply(t *testing.T) {
	s.write(t, "web-tier.yaml", string(examples.WebTier))
	s.ends(t, exitDifference, []string{"diff", "-f", s.path("web-tier.yaml")}, "web1", "5432")
	s.reach(t, lab.TCP(5432), func(_, _ string) bool { return false })
	s.must(t, []string{"apply", "-f", s.path("web-tier.yaml")}, "web1", "created", "enforced")
	s.reach(t, lab.TCP(5432), postgres)
	s.must(t, []string{"diff", "-f", s.path("web-tier.yaml")})

	s.write(t, "bad.yaml", strings.Replace(string(examples.WebTier), "10.20.0.11,", "10.20.0.300,", 1))
	s.ends(t, exitInput, []string{"apply", "-f", s.path("bad.yaml")}, "vms[0].nics[0].addresses[0]: 10.20.0.300: not an IP address")
	s.must(t, []string{"verify"}, "as it should be")
}

// look asks everything that a user may, in every form.
func (s *site) look(t *testing.T) {
	st := ask[api.Status](t, s, exitOK, "status")
	if len(st.Points) != 1 || !st.Points[0].InSync || st.Groups != 2 || st.VMs != len(vms) || len(st.Problems) > 0 {
		t.Errorf("status is %+v", st)
	}
	for _, n := range st.NICs {
		if n.State != engine.Enforced || len(n.Devices) != 1 {
			t.Errorf("NIC %+v", n)
		}
	}
	if v := ask[[]api.Verification](t, s, exitOK, "verify"); len(v) != 1 || v[0].Wanted != v[0].Enforced || len(v[0].Differences) > 0 {
		t.Errorf("verify says %+v", v)
	}
	if n := ask[[]api.NIC](t, s, exitOK, "get", "nics", "db1"); len(n) != 1 || n[0].VM != "db1" || n[0].Groups[0] != "db" {
		t.Errorf("get nics says %+v", n)
	}
	if x := ask[[]api.Set](t, s, exitOK, "get", "sets"); len(x) != 2 || len(x[1].Members) != 6 {
		t.Errorf("get sets says %+v", x)
	}
	if r := ask[[]api.Rule](t, s, exitOK, "get", "rules", "db"); len(r) == 0 || r[0].Group != "db" {
		t.Errorf("get rules says %+v", r)
	}
	yes := ask[api.Explanation](t, s, exitOK, "explain", "--from", "web1", "--to", "db1", "--proto", "tcp", "--dport", "5432")
	no := ask[api.Explanation](t, s, exitOK, "explain", "--from", "mallory", "--to", "db1", "--proto", "tcp", "--dport", "5432")
	if !yes.Allowed || yes.Reason != string(core.ReasonRule) || no.Allowed || no.Reason != string(core.ReasonIngressRules) {
		t.Errorf("explain says %+v and %+v", yes, no)
	}
	s.must(t, []string{"explain", "--from", "mallory", "--to", "db1", "--proto", "tcp", "--dport", "5432"}, "ingress", "group web")
	s.write(t, "changed.yaml", s.edited(rule5432, ""))
	d := ask[api.Change](t, s, exitDifference, "diff", "-f", s.path("changed.yaml"))
	if len(d.Elements) != 2 || d.Elements[0].Add || d.Elements[0].What != "group db" {
		t.Errorf("diff says %+v", d)
	}
	// What get prints can be applied, and is what there is.
	out, err := s.ringwall(exitOK, "get", "all", "-o", "yaml")
	labtest.Check(t, err)
	s.write(t, "got.yaml", out)
	for _, o := range ask[api.Change](t, s, exitOK, "apply", "-f", s.path("got.yaml")).Objects {
		if o.Action != api.Unchanged {
			t.Errorf("what was got is not what there is: %+v", o)
		}
	}
}

// attacks: what is spoofed goes nowhere and is counted.
func (s *site) attacks(t *testing.T) {
	mallory, web, fabric := s.at["mallory"].Port(0), s.at["web1"].Port(0), s.at["fabric"].Port(0)
	stolen := lab.FlowBetween(web, fabric, core.IPv4)
	stolen.SrcMAC = mallory.MAC()
	o := labtest.Observe(t, web, fabric)
	seen := labtest.Send(t, o,
		lab.Probe{Name: "web1's address", From: mallory, Frame: stolen.UDP(1, 2, "stolen")},
		lab.Probe{Name: "a DHCP server", From: mallory, Frame: lab.FlowBetween(mallory, web, core.IPv4).DHCPOffer(web.MAC(), web.Addr(core.IPv4))},
		lab.Probe{Name: "its own address", From: mallory, Frame: lab.FlowBetween(mallory, fabric, core.IPv4).UDP(1, 3, "honest")})
	if len(seen[0].Packets) > 0 || len(seen[1].Packets) > 0 || !seen[2].At(fabric) {
		t.Errorf("spoofed: seen at %v; DHCP: at %v; honest: at %v", seen[0].Ports(), seen[1].Ports(), seen[2].Ports())
	}
	counted := map[string]uint64{}
	for _, c := range ask[[]api.Counter](t, s, exitOK, "counters") {
		counted[c.VM+" "+c.Direction+" "+c.Reason] += c.Packets
	}
	if counted["mallory egress ip-spoof"] != 1 || counted["mallory egress dhcp-guard"] != 1 {
		t.Errorf("counted: %v", counted)
	}
	s.must(t, []string{"counters"}, "ip-spoof")
}

// rule5432 is the line of the example without which the databases are deaf.
const rule5432 = "  - {direction: ingress, protocol: tcp, ports: [5432], from: {groups: [web]}}\n"

func (s *site) edited(old, new string) string {
	return strings.Replace(string(examples.WebTier), old, new, 1)
}

// change: under an open flow a rule comes and goes, then its own goes and comes
// back.
func (s *site) change(t *testing.T) {
	flow := labtest.Must(lab.StartFlow(t.Context(), lab.FlowSpec{Client: s.at["web1"], Server: s.at["db1"], Service: lab.TCP(5432)}))(t)
	defer flow.Stop()
	s.write(t, "changed.yaml", s.edited(rule5432, rule5432+"  - {direction: ingress, protocol: tcp, ports: [6379], from: {groups: [web]}}\n"))
	s.reach(t, lab.TCP(6379), func(from, to string) bool { return to == "fabric" && !isDB(from) })
	s.must(t, []string{"apply", "-f", s.path("changed.yaml")})
	s.reach(t, lab.TCP(6379), postgres)
	s.goesOn(t, flow, true)

	s.write(t, "changed.yaml", s.edited(rule5432, ""))
	s.must(t, []string{"apply", "-f", s.path("changed.yaml")})
	s.goesOn(t, flow, false)
	s.must(t, []string{"apply", "-f", s.path("web-tier.yaml")})
	s.goesOn(t, flow, true)
}

// goesOn fails the test unless both ends of a flow hear each other, or neither.
func (s *site) goesOn(t *testing.T, flow *lab.Flow, want bool) {
	t.Helper()
	d := 500 * time.Millisecond // enough for several messages
	if want {
		d = patience // TCP waits longer after each attempt that failed
	}
	if there, back := flow.Progress(t.Context(), d); there != want || back != want {
		t.Errorf("the flow goes on to the server: %v, to the client: %v, want %v", there, back, want)
	}
}

// restart: what is enforced stays without the agent, and the next one adopts it.
// Nothing of that is felt.
func (s *site) restart(t *testing.T) {
	tcp := labtest.Must(lab.StartFlow(t.Context(), lab.FlowSpec{Client: s.at["web1"], Server: s.at["db1"], Service: lab.TCP(5432)}))(t)
	defer tcp.Stop()
	s.write(t, "changed.yaml", s.edited(rule5432, rule5432+"  - {direction: ingress, protocol: udp, ports: [6000], from: {groups: [web]}}\n"))
	s.must(t, []string{"apply", "-f", s.path("changed.yaml")})
	flood := labtest.Must(lab.StartFlood(t.Context(), lab.FloodSpec{From: s.at["web1"], To: s.at["db1"], Service: lab.UDP(6000), Rate: 1000}))(t)
	s.stop(t)
	s.goesOn(t, tcp, true)
	s.reach(t, lab.TCP(5432), postgres)
	s.start(t)
	if st := ask[api.Status](t, s, exitOK, "status"); st.Points[0].Stats.Applies != 0 {
		t.Errorf("a restart that finds everything in place wrote: %+v", st.Points[0].Stats)
	}
	s.goesOn(t, tcp, true)
	if stats := flood.Stop(); stats.LostTotal() > stats.Refused {
		t.Errorf("over a restart an allowed flood lost packets: %v", stats)
	}
}

// reload: SIGHUP takes a good config and refuses a bad one.
func (s *site) reload(t *testing.T) {
	dns := func(allowed bool) func(from, to string) bool {
		return func(from, to string) bool { return to == "fabric" && (allowed || !isDB(from)) }
	}
	s.reach(t, lab.TCP(53), dns(false))
	hangup := func(config, said string) {
		t.Helper()
		s.write(t, "config.yaml", config)
		before := strings.Count(s.log.String(), said)
		labtest.Check(t, s.agent.Process.Signal(syscall.SIGHUP))
		s.eventually(t, "reload", func() error {
			if strings.Count(s.log.String(), said) > before {
				return nil
			}
			return fmt.Errorf("the log does not say %q", said)
		})
	}
	good := strings.Replace(s.config, "bridges: [br-tenant]", "bridges: [br-tenant]\n  always_allow: [dns]", 1)
	hangup(good, "reloaded")
	s.reach(t, lab.TCP(53), dns(true))
	hangup(strings.Replace(good, "bridges:", "bridgse:", 1), "did you mean bridges?")
	s.reach(t, lab.TCP(53), dns(true))
	s.write(t, "config.yaml", good)
}

// disturb: somebody else's `nft flush ruleset` is noticed, put right, and told.
func (s *site) disturb(t *testing.T) {
	if st := ask[api.Status](t, s, exitOK, "status"); st.Points[0].Stats.Drifts != 0 {
		t.Errorf("drift before anybody did anything: %+v", st.Points[0].Stats)
	}
	labtest.Check(t, s.host.Do(func() error {
		out, err := exec.Command("nft", "flush", "ruleset").CombinedOutput()
		if err != nil {
			return fmt.Errorf("nft flush ruleset: %w: %s", err, out)
		}
		return nil
	}))
	s.eventually(t, "repair", func() error {
		_, err := s.ringwall(exitOK, "verify")
		return err
	})
	s.reach(t, lab.TCP(5432), postgres)
	if st := ask[api.Status](t, s, exitOK, "status"); st.Points[0].Stats.Drifts == 0 || st.Points[0].Stats.Repairs == 0 {
		t.Errorf("the repair is not counted: %+v", st.Points[0].Stats)
	}
	for _, said := range []string{"enforced state was changed by somebody else; repairing", "by=nft["} {
		if !strings.Contains(s.log.String(), said) {
			t.Errorf("the log does not say %q", said)
		}
	}
}

// remove: without desired state all is closed again; without the agent's objects
// the bridge is as it was.
func (s *site) remove(t *testing.T) {
	s.must(t, []string{"delete", "-f", s.path("changed.yaml")}, "deleted")
	s.reach(t, lab.TCP(5432), func(_, _ string) bool { return false })
	s.stop(t)
	if _, err := os.Stat(filepath.Join(s.dir, "ringwall.sock")); !os.IsNotExist(err) {
		t.Errorf("the socket stays: %v", err)
	}
}
