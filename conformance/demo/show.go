package main

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"time"

	"github.com/ringwall/ringwall/conformance/lab"
	"github.com/ringwall/ringwall/conformance/lab/frame"
	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/docs/examples"
)

// demonstrate is the whole show. It fails when anything is not as it says.
func demonstrate(ctx context.Context) (err error) {
	if err := privateRun(); err != nil {
		return err
	}
	start := time.Now()
	s, err := build(ctx)
	if s != nil {
		defer s.close()
	}
	if err != nil {
		return err
	}
	for _, act := range []struct {
		title string
		play  func(context.Context, *site) error
	}{
		{"A host with a bridge, an uplink and six VMs. No firewall: everybody reaches everybody.", before},
		{"ringwalld starts. It knows no policy yet, so every VM port is closed.", closed},
		{"ringwall apply -f web-tier.yaml", apply},
		{"mallory and db1 try what they should not.", attacks},
		{"ringwall explain: why can mallory not reach the database?", explain},
		{"A rule is added while 5,000 packets a second flow. None may be lost.", liveChange},
		{"A rule is taken away under an open connection. Both ends keep trying.", revoke},
		{"ringwall status", status},
	} {
		fmt.Println(title(act.title))
		if err := act.play(ctx, s); err != nil {
			return err
		}
	}
	fmt.Printf("\nAll as it should be, in %.1f s. Everything is removed again.\n", time.Since(start).Seconds())
	return nil
}

// title is bold on a terminal.
func title(text string) string {
	if info, err := os.Stdout.Stat(); err == nil && info.Mode()&os.ModeCharDevice != 0 && os.Getenv("NO_COLOR") == "" {
		return "\n\033[1m" + text + "\033[0m"
	}
	return "\n== " + text
}

func (s *site) nodes() []lab.Node {
	nodes := []lab.Node{s.fabric}
	for _, n := range names {
		nodes = append(nodes, s.vms[n])
	}
	return nodes
}

// matrix asks everybody for everybody and compares with what allowed says.
func (s *site) matrix(ctx context.Context, service lab.Service, allowed func(from, to string) bool) error {
	m := lab.NewMatrix(s.nodes()...)
	m.Wait = 250 * time.Millisecond
	for _, from := range s.nodes() {
		for _, to := range s.nodes() {
			if from != to {
				m.Expect(from.Name(), to.Name(), service, allowed(from.Name(), to.Name()))
			}
		}
	}
	report, err := m.Run(ctx)
	if err != nil {
		return err
	}
	fmt.Println(indent(report.Text()))
	if report.Failed() {
		return fmt.Errorf("the matrix of %s is not as it should be", service)
	}
	return nil
}

func before(ctx context.Context, s *site) error {
	return s.matrix(ctx, lab.TCP(5432), func(_, _ string) bool { return true })
}

func closed(ctx context.Context, s *site) error {
	if err := s.startAgent(ctx); err != nil {
		return err
	}
	return s.matrix(ctx, lab.TCP(5432), func(_, _ string) bool { return false })
}

func isWeb(name string) bool { return strings.HasPrefix(name, "web") }
func isDB(name string) bool  { return strings.HasPrefix(name, "db") }

func apply(ctx context.Context, s *site) error {
	if err := os.WriteFile(s.path("web-tier.yaml"), examples.WebTier, 0o600); err != nil {
		return err
	}
	out, err := s.ringwall(ctx, "apply", "-f", s.path("web-tier.yaml"))
	if err != nil {
		return err
	}
	fmt.Println(indent(out))
	if err := s.matrix(ctx, lab.TCP(5432), func(from, to string) bool { return isWeb(from) && isDB(to) || to == "fabric" && !isDB(from) }); err != nil {
		return err
	}
	return s.matrix(ctx, lab.TCP(80), func(from, to string) bool { return isWeb(to) && !isDB(from) || to == "fabric" && !isDB(from) })
}

// attacks sends frames that the wire must not carry on.
func attacks(ctx context.Context, s *site) error {
	mallory, web, fabric := s.vms["mallory"].Port(0), s.vms["web1"].Port(0), s.fabric.Port(0)
	o, err := lab.Observe(web, fabric)
	if err != nil {
		return err
	}
	defer o.Close()
	toFabric := lab.FlowBetween(mallory, fabric, core.IPv4)
	stolen := lab.FlowBetween(web, fabric, core.IPv4)
	stolen.SrcMAC = mallory.MAC()
	gateway := frame.Flow{SrcMAC: mallory.MAC(), DstMAC: web.MAC(), Src: netip.MustParseAddr("10.20.0.254"), Dst: web.Addr(core.IPv4)}
	ll := mallory.MAC().LinkLocal()
	ra := frame.Multicast(mallory.MAC(), ll, frame.AllNodes).Packet(frame.RA{Lifetime: 1800})
	probes := []lab.Probe{
		{Name: "web1's address", Frame: stolen.UDP(1, 2, "stolen")},
		{Name: "web1's MAC", Frame: toFabric.UDP(1, 3, "mac").From(web.MAC())},
		{Name: "ARP: the gateway is me", Frame: gateway.ARPReply()},
		{Name: "rogue DHCP server", Frame: lab.FlowBetween(mallory, web, core.IPv4).DHCPOffer(web.MAC(), web.Addr(core.IPv4))},
		{Name: "rogue router advertisement", Frame: ra},
		{Name: "VLAN-tagged", Frame: toFabric.UDP(1, 4, "tagged").Tagged(frame.VLAN{ID: 20})},
		{Name: "unknown ethertype", Frame: frame.Build(frame.Ethernet{Src: mallory.MAC(), Dst: fabric.MAC()}, frame.Payload("0x88b5"))},
	}
	honest := lab.Probe{Name: "its own address", Frame: toFabric.UDP(1, 5, "honest"), From: mallory}
	for i := range probes {
		probes[i].From = mallory
	}
	seen, err := o.Send(ctx, append(probes, honest)...)
	if err != nil {
		return err
	}
	for i, x := range seen {
		word, ok := "blocked", len(x.Packets) == 0
		if i == len(probes) {
			word, ok = "passes", x.At(fabric)
		}
		if !ok {
			return fmt.Errorf("%s: seen at %v", x.Probe.Name, x.Ports())
		}
		fmt.Printf("  %-28s %s\n", x.Probe.Name, word)
	}
	out, err := s.ringwall(ctx, "counters")
	if err != nil {
		return err
	}
	fmt.Println("\n  ringwall counters, mallory's, by reason:")
	for line := range strings.Lines(out) {
		if strings.HasPrefix(line, "VM") || strings.Contains(line, "mallory") {
			fmt.Print("  ", line)
		}
	}
	return nil
}

func explain(ctx context.Context, s *site) error {
	out, err := s.ringwall(ctx, "explain", "--from", "mallory", "--to", "db1", "--proto", "tcp", "--dport", "5432")
	if err != nil {
		return err
	}
	fmt.Println(indent(out))
	return nil
}

// rulesFor replaces the databases' first rule in the manifest.
func (s *site) applyEdited(ctx context.Context, from, to string) error {
	text := strings.Replace(string(examples.WebTier), from, to, 1)
	if text == string(examples.WebTier) {
		return fmt.Errorf("the example no longer has %q", from)
	}
	if err := os.WriteFile(s.path("edited.yaml"), []byte(text), 0o600); err != nil {
		return err
	}
	_, err := s.ringwall(ctx, "apply", "-f", s.path("edited.yaml"))
	return err
}

const postgresRule = `  - {direction: ingress, protocol: tcp, ports: [5432], from: {groups: [web]}}
`

func liveChange(ctx context.Context, s *site) error {
	if err := s.applyEdited(ctx, postgresRule, postgresRule+"  - {direction: ingress, protocol: udp, ports: [6000], from: {groups: [web]}}\n"); err != nil {
		return err
	}
	flood, err := lab.StartFlood(ctx, lab.FloodSpec{From: s.vms["web1"], To: s.vms["db1"], Service: lab.UDP(6000)})
	if err != nil {
		return err
	}
	const changes = 20
	for i := range changes {
		extra := fmt.Sprintf("  - {direction: ingress, protocol: udp, ports: [6000], from: {groups: [web]}}\n  - {direction: ingress, protocol: tcp, ports: [%d], from: {cidrs: [10.20.0.0/24]}}\n", 7000+i)
		if err := s.applyEdited(ctx, postgresRule, postgresRule+extra); err != nil {
			return err
		}
	}
	stats := flood.Stop()
	fmt.Printf("  %d changes of db's rules; the flow from web1 to db1: %s\n", changes, stats)
	if stats.LostTotal() > 0 {
		return fmt.Errorf("packets of an allowed flow were lost")
	}
	return nil
}

func revoke(ctx context.Context, s *site) error {
	if _, err := s.ringwall(ctx, "apply", "-f", s.path("web-tier.yaml")); err != nil {
		return err
	}
	flow, err := lab.StartFlow(ctx, lab.FlowSpec{Client: s.vms["web1"], Server: s.vms["db1"], Service: lab.TCP(5432)})
	if err != nil {
		return err
	}
	defer flow.Stop()
	server, client := flow.Progress(ctx, 300*time.Millisecond)
	fmt.Printf("  open:     web1 hears db1: %-5v  db1 hears web1: %v\n", client, server)
	if !server || !client {
		return fmt.Errorf("the connection does not work before the cut")
	}
	if err := s.applyEdited(ctx, postgresRule, ""); err != nil {
		return err
	}
	server, client = flow.Progress(ctx, 2*time.Second)
	fmt.Printf("  revoked:  web1 hears db1: %-5v  db1 hears web1: %v   (2 s of trying)\n", client, server)
	if server || client {
		return fmt.Errorf("the revoked connection still carries data")
	}
	if _, err := s.ringwall(ctx, "apply", "-f", s.path("web-tier.yaml")); err != nil {
		return err
	}
	server, client = flow.Progress(ctx, 4*time.Second)
	fmt.Printf("  restored: web1 hears db1: %-5v  db1 hears web1: %v\n", client, server)
	if !server || !client {
		return fmt.Errorf("the connection does not go on after the rule came back")
	}
	return nil
}

func status(ctx context.Context, s *site) error {
	out, err := s.ringwall(ctx, "status")
	if err != nil {
		return err
	}
	fmt.Println(indent(out))
	out, err = s.ringwall(ctx, "verify")
	if err != nil {
		return err
	}
	fmt.Println(indent(out))
	return nil
}

func indent(text string) string {
	return "  " + strings.ReplaceAll(strings.TrimRight(text, "\n"), "\n", "\n  ")
}
