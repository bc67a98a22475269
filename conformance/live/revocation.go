package live

import (
	"fmt"
	"testing"
	"time"

	"github.com/ringwall/ringwall/conformance/lab"
	"github.com/ringwall/ringwall/conformance/lab/labtest"
	"github.com/ringwall/ringwall/conformance/scenarios"
	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/core/policy"
)

// How long the ends of a revoked flow go on trying, the server alone at first.
const (
	serverAlone = 5 * time.Second
	bothTry     = 2 * time.Second
	// goesOn is how long a flow that was given back may take: TCP waits longer
	// with each attempt that failed.
	goesOn = 10 * time.Second
)

// Revocation cuts flows of TCP and UDP, IPv4 and IPv6, from outside and from a
// neighbour VM. The server's side speaks first, for 5 s alone, then both ends try
// to go on, and nothing passes. A flow of another rule does not notice. When the rule is given
// back, the flows go on or start anew.
func Revocation(t *testing.T, target scenarios.Target) {
	outside := &core.Peers{CIDRs: prefixes("10.0.0.9/32", "fd00::9/128")}
	members := &core.Peers{Groups: []string{"ga"}}
	survivor := allow(core.Ingress, core.ProtocolUDP, 7000, 7000, nil)
	rules := []core.Rule{survivor}
	for _, p := range []core.Protocol{core.ProtocolTCP, core.ProtocolUDP} {
		rules = append(rules, allow(core.Ingress, p, 1000, 1999, outside), allow(core.Ingress, p, 2000, 2999, members))
	}
	s := newSite(t, target, core.Group{Name: "ga"}, core.Group{Name: "gb", Rules: rules}, core.Group{Name: "other"})
	scenarios.SkipWithout(t, s.backend, core.FeatureFlows)

	var specs []lab.FlowSpec
	for i, service := range []lab.Service{lab.TCP(0), lab.UDP(0)} {
		for j, f := range core.Families {
			service = service.Over(f)
			service.Port = uint16(1000 + 10*i + j)
			specs = append(specs, lab.FlowSpec{Client: s.u, Server: s.b, Service: service})
			service.Port += 1000
			specs = append(specs, lab.FlowSpec{Client: s.a, Server: s.b, Service: service})
		}
	}
	flows := make([]*lab.Flow, len(specs))
	for i, spec := range specs {
		flows[i] = labtest.Must(lab.StartFlow(t.Context(), spec))(t)
		defer flows[i].Stop()
	}
	other := labtest.Must(lab.StartFlow(t.Context(), lab.FlowSpec{Client: s.u, Server: s.b, Service: lab.UDP(7000)}))(t)
	defer other.Stop()

	for _, f := range flows {
		f.Silence(lab.Client, true)
	}
	s.change(t, func(in *policy.Input) {
		in.Groups[1].Rules = []core.Rule{survivor, rules[2], rules[4]} // those from outside go
		in.VMs[0].NICs[0].Groups = []string{"other"}                   // and so does the member
	})
	labtest.Check(t, s.sweep(t.Context()))
	s.cut(t, "the server alone", specs, flows, serverAlone)
	for _, f := range flows {
		f.Silence(lab.Client, false)
	}
	s.cut(t, "both ends", specs, flows, bothTry)
	if there, back := other.Progress(t.Context(), time.Second); !there || !back {
		t.Errorf("a flow that no change concerns stands still (to the server %v, to the client %v)", there, back)
	}

	s.change(t, func(in *policy.Input) {
		in.Groups[1].Rules = rules
		in.VMs[0].NICs[0].Groups = []string{"ga"}
	})
	labtest.Check(t, s.sweep(t.Context()))
	for i, f := range flows {
		if there, back := f.Progress(t.Context(), goesOn); there && back {
			continue
		}
		f.Stop()
		again, err := lab.StartFlow(t.Context(), specs[i])
		if err != nil {
			t.Errorf("%s: given back, it neither goes on nor starts anew: %v", name(specs[i]), err)
			continue
		}
		again.Stop()
	}
}

func name(s lab.FlowSpec) string { return fmt.Sprintf("%s from %s", s.Service, s.Client.Name()) }

// cut fails the test when an end of a flow hears something within d.
func (s *site) cut(t *testing.T, who string, specs []lab.FlowSpec, flows []*lab.Flow, d time.Duration) {
	t.Helper()
	time.Sleep(50 * time.Millisecond) // what had passed before is read by now
	type heard struct{ server, client int64 }
	before := make([]heard, len(flows))
	for i, f := range flows {
		before[i] = heard{f.Received(lab.Server), f.Received(lab.Client)}
	}
	time.Sleep(d)
	for i, f := range flows {
		if now := (heard{f.Received(lab.Server), f.Received(lab.Client)}); now != before[i] {
			t.Errorf("%s: revoked, with %s trying: the server heard %d messages more, the client %d", name(specs[i]), who,
				now.server-before[i].server, now.client-before[i].client)
		}
	}
}
