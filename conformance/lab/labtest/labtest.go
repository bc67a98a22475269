// Package labtest makes the packet lab convenient in tests: what cannot fail in
// a sound lab fails the test, and hosts close with it.
package labtest

import (
	"testing"

	"github.com/ringwall/ringwall/conformance/lab"
)

// Host is a lab.Host whose methods fail the test in place of returning errors.
type Host struct {
	*lab.Host
	t testing.TB
}

// New makes a host that closes when the test ends.
func New(t testing.TB, o lab.Options) *Host {
	t.Helper()
	if o.Name == "" {
		o.Name = "host"
	}
	h, err := lab.New(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := h.Close(); err != nil {
			t.Error(err)
		}
	})
	return &Host{h, t}
}

// AddBridge is Host.AddBridge.
func (h *Host) AddBridge(b lab.BridgeSpec) {
	h.t.Helper()
	Check(h.t, h.Host.AddBridge(b))
}

// AddStation is Host.AddStation.
func (h *Host) AddStation(spec lab.StationSpec) *lab.Station {
	h.t.Helper()
	return Must(h.Host.AddStation(spec))(h.t)
}

// AddStations is Host.AddStations.
func (h *Host) AddStations(specs ...lab.StationSpec) []*lab.Station {
	h.t.Helper()
	return Must(h.Host.AddStations(specs...))(h.t)
}

// Port is Host.Port.
func (h *Host) Port(device string) *lab.Port {
	h.t.Helper()
	return Must(h.Host.Port(device))(h.t)
}

// Observe opens an observatory that closes when the test ends.
func Observe(t testing.TB, ports ...*lab.Port) *lab.Observatory {
	t.Helper()
	o := Must(lab.Observe(ports...))(t)
	t.Cleanup(o.Close)
	return o
}

// Send sends a batch of probes.
func Send(t testing.TB, o *lab.Observatory, probes ...lab.Probe) []lab.Sighting {
	t.Helper()
	return Must(o.Send(t.Context(), probes...))(t)
}

// Verify runs a matrix and fails the test with the grid when it differs.
func Verify(t testing.TB, m *lab.Matrix) {
	t.Helper()
	r := Must(m.Run(t.Context()))(t)
	if r.Failed() {
		t.Errorf("reachability differs from what is expected:\n%s", r.Text())
	}
}

// Must takes the results of a call and, given the test, returns the value:
// Must(f())(t).
func Must[T any](v T, err error) func(testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		Check(t, err)
		return v
	}
}

// Check fails the test on an error.
func Check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
