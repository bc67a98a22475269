package lab_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/ringwall/ringwall/conformance/lab"
	"github.com/ringwall/ringwall/conformance/lab/labtest"
	"github.com/ringwall/ringwall/core"
)

func TestPing(t *testing.T) {
	t.Parallel()
	s := newSite(t, false)
	for _, f := range core.Families {
		for _, to := range []lab.Node{s.b, s.up, s.c, s.x, s.Host.Host} {
			if _, err := lab.Ping(t.Context(), s.a, to.Addr(f), lab.PingOptions{Size: 1000}); err != nil {
				t.Errorf("%s: %v", to.Name(), err)
			}
		}
		if _, err := lab.Ping(t.Context(), s.Host, s.a.Addr(f), lab.PingOptions{}); err != nil {
			t.Error(err)
		}
	}
	start := time.Now()
	_, err := lab.Ping(t.Context(), s.a, addr("10.0.0.200"), lab.PingOptions{Timeout: 100 * time.Millisecond})
	if err == nil || !strings.Contains(err.Error(), "no answer") || time.Since(start) > time.Second {
		t.Errorf("ping to nobody: %v", err)
	}
}

func TestConnect(t *testing.T) {
	t.Parallel()
	s := newSite(t, false)
	var services []lab.Service
	for _, f := range core.Families {
		services = append(services, lab.TCP(80).Over(f), lab.UDP(53).Over(f), lab.SCTP(9899).Over(f))
	}
	services = append(services, lab.ICMP(), lab.ICMPv6())
	for _, to := range []lab.Node{s.b, s.x, s.Host.Host} {
		e := labtest.Must(lab.StartEcho(t.Context(), to, services...))(t)
		t.Cleanup(func() { e.Close() })
		for _, svc := range services {
			if err := lab.Connect(t.Context(), s.a, to.Addr(svc.Family), svc, lab.ConnectOptions{SrcPort: 4444}); err != nil {
				t.Errorf("%s: %v", to.Name(), err)
			}
		}
	}
	for _, svc := range []lab.Service{lab.TCP(81), lab.UDP(54), lab.SCTP(9)} {
		if err := lab.Connect(t.Context(), s.a, s.b.Addr(core.IPv4), svc, lab.ConnectOptions{Timeout: 100 * time.Millisecond}); err == nil {
			t.Errorf("%s: connected, but nobody listens", svc)
		}
	}
}

func TestFlowBothEndsTalk(t *testing.T) {
	t.Parallel()
	for _, svc := range []lab.Service{lab.TCP(80), lab.UDP(53), lab.TCP(81).Over(core.IPv6), lab.UDP(54).Over(core.IPv6)} {
		t.Run(svc.String(), func(t *testing.T) {
			t.Parallel()
			s := newSite(t, false)
			f := labtest.Must(lab.StartFlow(t.Context(), lab.FlowSpec{Client: s.a, Server: s.b, Service: svc, ClientPort: 4000}))(t)
			defer f.Stop()
			if c, srv := f.Ends(); c.Port() != 4000 || srv.Port() != svc.Port || c.Addr() != s.a.Addr(svc.Family) {
				t.Errorf("ends %s and %s", c, srv)
			}
			f.Silence(lab.Client, true)
			time.Sleep(200 * time.Millisecond) // what is under way
			if atServer, atClient := f.Progress(t.Context(), 500*time.Millisecond); atServer || !atClient {
				t.Errorf("client silent: server heard something: %v, client heard something: %v", atServer, atClient)
			}
			f.Silence(lab.Client, false)
			if atServer, atClient := f.Progress(t.Context(), 2*time.Second); !atServer || !atClient {
				t.Errorf("both talking: server heard something: %v, client heard something: %v", atServer, atClient)
			}
		})
	}
}

// TestFlowSurvivesMigration moves the server's host end away and back: the flow
// stops, and goes on.
func TestFlowSurvivesMigration(t *testing.T) {
	t.Parallel()
	s := newSite(t, false)
	f := labtest.Must(lab.StartFlow(t.Context(), lab.FlowSpec{Client: s.a, Server: s.b, Service: lab.TCP(80)}))(t)
	defer f.Stop()
	other := labtest.New(t, lab.Options{Name: "other"})
	other.AddBridge(lab.BridgeSpec{Name: "br0"})
	labtest.Check(t, s.b.Move(other.Host, lab.Plug{}))
	f.Progress(t.Context(), 50*time.Millisecond) // what was under way
	if atServer, atClient := f.Progress(t.Context(), 100*time.Millisecond); atServer || atClient {
		t.Errorf("away: %v, %v", atServer, atClient)
	}
	labtest.Check(t, s.b.Move(s.Host.Host, lab.Plug{}))
	if atServer, atClient := f.Progress(t.Context(), 5*time.Second); !atServer || !atClient {
		t.Errorf("back: server heard something: %v, client heard something: %v", atServer, atClient)
	}
}

func TestFlood(t *testing.T) {
	t.Parallel()
	s := newSite(t, false)
	f := labtest.Must(lab.StartFlood(t.Context(), lab.FloodSpec{From: s.a, To: s.b, Service: lab.UDP(6000)}))(t)
	time.Sleep(500 * time.Millisecond)
	stats := f.Stop()
	t.Log(stats)
	if stats.LostTotal() > 0 || stats.Duplicates > 0 || stats.Received != stats.Sent {
		t.Error("a bridge without a firewall lost something")
	}
	if stats.Sent < 500 { // a starved machine sends less than it should
		t.Errorf("sent %d in half a second, want about 2500", stats.Sent)
	}
}

// TestFloodSeesAnInterruption pulls the plug for a while.
func TestFloodSeesAnInterruption(t *testing.T) {
	t.Parallel()
	s := newSite(t, false)
	f := labtest.Must(lab.StartFlood(t.Context(), lab.FloodSpec{From: s.a, To: s.b, Service: lab.UDP(6000).Over(core.IPv6)}))(t)
	time.Sleep(100 * time.Millisecond)
	labtest.Check(t, s.Host.SetLink("vnetb", false))
	time.Sleep(100 * time.Millisecond)
	labtest.Check(t, s.Host.SetLink("vnetb", true))
	time.Sleep(300 * time.Millisecond)
	stats := f.Stop()
	t.Log(stats)
	if stats.LostTotal() < 200 || stats.LongestPause < 80*time.Millisecond {
		t.Errorf("an interruption of 100 ms at 5000/s shows as %s", stats)
	}
}

func TestFloodToNobody(t *testing.T) {
	t.Parallel()
	s := newSite(t, false)
	labtest.Check(t, s.Host.SetLink("vnetb", false))
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := lab.StartFlood(ctx, lab.FloodSpec{From: s.a, To: s.b, Service: lab.UDP(6000)}); err == nil {
		t.Error("a flood that does not arrive started")
	}
}
