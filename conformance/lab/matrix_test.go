package lab_test

import (
	"errors"
	"flag"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/ringwall/ringwall/conformance/lab"
	"github.com/ringwall/ringwall/conformance/lab/labtest"
	"github.com/ringwall/ringwall/core"
)

var update = flag.Bool("update", false, "rewrite golden files")

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		labtest.Check(t, os.MkdirAll("testdata", 0o755))
		labtest.Check(t, os.WriteFile(path, []byte(got), 0o644))
	}
	want, err := os.ReadFile(path)
	labtest.Check(t, err)
	if d := cmp.Diff(string(want), got); d != "" {
		t.Errorf("%s (-want +got); -update rewrites it:\n%s", name, d)
	}
}

func TestReportText(t *testing.T) {
	t.Parallel()
	cell := func(from, to string, s lab.Service, e lab.Expectation, reachable bool) lab.Cell {
		c := lab.Cell{From: from, To: to, Service: s, Expected: e, Reachable: reachable}
		if !reachable {
			c.Reason = "i/o timeout"
		}
		return c
	}
	web, web6 := lab.TCP(80), lab.TCP(80).Over(core.IPv6)
	wrong := &lab.MatrixReport{Nodes: []string{"a", "long-name-vm", "host"}, Cells: []lab.Cell{
		cell("a", "long-name-vm", web, lab.Pass, true),
		cell("a", "host", web, lab.Block, false),
		cell("long-name-vm", "a", web, lab.Block, true),
		cell("long-name-vm", "host", web, lab.Pass, false),
		cell("host", "a", web, lab.Unknown, true),
		cell("a", "host", web6, lab.Unknown, false),
	}}
	if !wrong.Failed() {
		t.Error("a leak and a cut do not fail")
	}
	golden(t, "report-wrong.txt", wrong.Text())
	right := &lab.MatrixReport{Nodes: []string{"a", "b"}, Cells: []lab.Cell{
		cell("a", "b", lab.ICMP(), lab.Pass, true), cell("b", "a", lab.ICMP(), lab.Block, false)}}
	if right.Failed() {
		t.Error("a report without surprises fails")
	}
	golden(t, "report-right.txt", right.Text())
}

func TestMatrixOnAPlainBridge(t *testing.T) {
	t.Parallel()
	s := newSite(t, false)
	m := lab.NewMatrix(s.a, s.b, s.up, s.c, s.x, s.Host)
	for _, f := range core.Families {
		for _, svc := range []lab.Service{lab.TCP(80), lab.UDP(53), lab.SCTP(9899)} {
			m.ExpectAll(svc.Over(f), true)
		}
	}
	m.ExpectAll(lab.ICMP(), true).ExpectAll(lab.ICMPv6(), true)
	start := time.Now()
	labtest.Verify(t, m)
	t.Logf("in %v", time.Since(start))
}

// TestMatrixFindsWhatIsWrong cuts one node off and expects the contrary.
func TestMatrixFindsWhatIsWrong(t *testing.T) {
	t.Parallel()
	s := newSite(t, false)
	labtest.Check(t, s.Host.SetLink("vnetb", false))
	m := lab.NewMatrix(s.a, s.b, s.up)
	m.Wait, m.Patience = time.Second, 100*time.Millisecond
	m.ExpectAll(lab.TCP(80), true).Expect("a", "fabric", lab.TCP(80), false)
	r := labtest.Must(m.Run(t.Context()))(t)
	got := map[string]string{}
	for _, c := range r.Cells {
		got[c.From+" "+c.To] = c.Mark()
	}
	want := map[string]string{"a b": "CUT", "a fabric": "LEAK", "b a": "CUT", "b fabric": "CUT", "fabric a": "ok", "fabric b": "CUT"}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("(-want +got):\n%s\n%s", d, r.Text())
	}
}

func TestMatrixRefusesUnknownNames(t *testing.T) {
	t.Parallel()
	s := newSite(t, false)
	_, err := lab.NewMatrix(s.a, s.b).Expect("a", "nobody", lab.ICMP(), true).Run(t.Context())
	if !errors.Is(err, core.ErrInvalid) {
		t.Errorf("error %v", err)
	}
}
