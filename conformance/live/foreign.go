package live

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/ringwall/ringwall/conformance/lab"
	"github.com/ringwall/ringwall/conformance/lab/labtest"
	"github.com/ringwall/ringwall/conformance/scenarios"
	"github.com/ringwall/ringwall/core"
)

// Tamper is what another program may do to what a backend enforces. Each driver
// has its own kinds.
type Tamper struct {
	Name string
	// Do acts on a thread inside the host's network namespace.
	Do func() error
	// Drift is a part of a drift's object that Observe must report; empty when
	// the backend mends it by itself.
	Drift string
	// Event is the kind that must be told, and By a part of who did it, when
	// the system tells.
	Event core.EventKind
	By    string
}

// noticed is how long a backend may take to tell.
const noticed = 5 * time.Second

// Foreign has other programs break what is enforced. It must be told as an event,
// and seen by Observe, until Sync has put it right, or the backend by itself.
func Foreign(t *testing.T, target scenarios.Target, tampers ...Tamper) {
	for _, x := range tampers {
		t.Run(x.Name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, target, core.Group{Name: "ga"}, core.Group{Name: "gb", Rules: []core.Rule{
				allow(core.Ingress, core.ProtocolTCP, 80, 80, nil), allow(core.Ingress, core.ProtocolTCP, 22, 22, &core.Peers{Groups: []string{"ga"}})}})
			scenarios.SkipWithout(t, s.backend, core.FeatureEvents)
			s.holds(t)
			events, err := s.backend.(core.EventBackend).Events(t.Context())
			labtest.Check(t, err)
			labtest.Check(t, s.host.Do(x.Do))
			if err := await(t.Context(), events, x); err != nil {
				t.Error(err)
			}
			if x.Drift != "" {
				s.drifted(t, x.Drift)
				labtest.Check(t, s.backend.Sync(t.Context(), s.ruleset.Ruleset))
			}
			s.insync(t)
			s.holds(t)
		})
	}
}

// await waits for the event that a tamper must bring.
func await(ctx context.Context, events <-chan core.Event, x Tamper) error {
	deadline := time.After(noticed)
	var others []core.Event
	for {
		select {
		case e, open := <-events:
			if !open {
				return fmt.Errorf("the events ended; before: %v", others)
			}
			if e.Kind == x.Event && strings.Contains(e.By, x.By) {
				return nil
			}
			others = append(others, e)
		case <-deadline:
			return fmt.Errorf("no event %q by %q within %v, but %v", x.Event, x.By, noticed, others)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// drifted: Observe names what is wrong.
func (s *site) drifted(t *testing.T, object string) {
	t.Helper()
	o := labtest.Must(s.backend.Observe(t.Context()))(t)
	for _, d := range o.Drift {
		if strings.Contains(d.Object, object) && d.Difference != "" {
			return
		}
	}
	t.Errorf("no drift names %q: %+v", object, o)
}

// insync waits until Observe sees what is wanted: a repair may be under way.
func (s *site) insync(t *testing.T) {
	t.Helper()
	for deadline := time.Now().Add(noticed); ; time.Sleep(10 * time.Millisecond) {
		o := labtest.Must(s.backend.Observe(t.Context()))(t)
		switch {
		case len(o.Drift) == 0 && o.Fingerprint == s.ruleset.Fingerprint:
			return
		case time.Now().After(deadline):
			t.Fatalf("it is not put right: fingerprint %s, want %s, drift %+v", o.Fingerprint.Short(), s.ruleset.Fingerprint.Short(), o.Drift)
		}
	}
}

// holds checks who reaches whom.
func (s *site) holds(t *testing.T) {
	t.Helper()
	m := lab.NewMatrix(s.a, s.b, s.u)
	for _, f := range core.Families {
		for _, from := range []string{"a", "u"} {
			m.Expect(from, "b", lab.TCP(80).Over(f), true)
			m.Expect(from, "b", lab.TCP(22).Over(f), from == "a")
			m.Expect("b", from, lab.TCP(80).Over(f), from == "u")
		}
	}
	labtest.Verify(t, m)
}
