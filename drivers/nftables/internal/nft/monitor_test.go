package nft

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// The monitor tells who changed which tables, and nothing of our own changes.
func TestMonitorReportsForeignChanges(t *testing.T) {
	c := enterNamespace(t)
	m, err := NewMonitor(c)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()

	want := sampleState()
	apply(t, c, Diff(nil, want))
	nft(t, "add", "table", "ip", "other")
	apply(t, c, Diff(want, nil))
	nft(t, "add table ip other; add table ip6 other; add chain ip6 other c; add rule ip6 other c accept")
	nft(t, "delete", "table", "ip", "other")
	gen, err := c.Generation(testContext(t))
	if err != nil {
		t.Fatal(err)
	}

	var got []Event
	for range 3 {
		event, err := m.Next(testContext(t))
		if err != nil {
			t.Fatal(err)
		}
		if event.Process != "nft" || event.PID == 0 || event.PID == os.Getpid() || event.Overrun {
			t.Errorf("event %+v, want one of process nft", event)
		}
		event.PID = 0
		got = append(got, event)
	}
	if d := cmp.Diff([]Event{
		{Generation: gen - 3, Process: "nft", Tables: []TableID{{IPv4, "other"}}},
		{Generation: gen - 1, Process: "nft", Tables: []TableID{{IPv6, "other"}}},
		{Generation: gen, Process: "nft", Tables: []TableID{{IPv4, "other"}}},
	}, got); d != "" {
		t.Errorf("events (-want +got):\n%s", d)
	}
	nothingMore(t, m)
}

func nothingMore(t *testing.T, m *Monitor) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if event, err := m.Next(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("event %+v, %v, want none", event, err)
	}
}

// A transaction of ours that announces more than any buffer holds costs the
// monitor nothing, even if the socket that sends it is not the first.
func TestMonitorSurvivesOwnLargeTransactions(t *testing.T) {
	c := enterNamespace(t)
	m, err := NewMonitor(c)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	if err := m.s.c.SetReadBuffer(1); err != nil { // the kernel's minimum
		t.Fatal(err)
	}
	want := bigState(200, 20)
	apply(t, c, Diff(nil, want))
	nothingMore(t, m)

	// After a lost answer the connection writes from another socket, whose
	// announcements reach the monitor and may overflow it: it says so.
	if err := c.dropWriter(); err != nil {
		t.Fatal(err)
	}
	c.setWriterForTest(t)
	gen := apply(t, c, Diff(want, nil))
	event, err := m.Next(testContext(t))
	if err != nil || !event.Overrun || event.Generation != gen {
		t.Errorf("event %+v, %v, want an overrun at generation %d", event, err, gen)
	}
	nft(t, "add", "table", "ip", "other")
	for event.Process != "nft" {
		if event, err = m.Next(testContext(t)); err != nil {
			t.Fatal(err)
		}
	}
	if event.Generation != gen+1 {
		t.Errorf("event %+v after the overrun, want generation %d", event, gen+1)
	}
}

// setWriterForTest gives the connection a socket with a port that the monitor's
// filter does not know.
func (c *Conn) setWriterForTest(t *testing.T) {
	t.Helper()
	first, err := c.ns.socket() // takes the port that was free
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { first.Close() })
	s, err := c.ns.socket()
	if err != nil {
		t.Fatal(err)
	}
	c.setWriter(s)
}

// Somebody else's large transaction overflows the socket: the monitor says that
// events were lost and goes on.
func TestMonitorOverrun(t *testing.T) {
	c := enterNamespace(t)
	m, err := NewMonitor(c)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	if err := m.s.c.SetReadBuffer(1); err != nil {
		t.Fatal(err)
	}
	var script strings.Builder
	script.WriteString("add table ip other\nadd chain ip other c\n")
	for range 2000 {
		script.WriteString("add rule ip other c tcp dport 22 counter accept\n")
	}
	cmd := exec.Command("nft", "-f", "-")
	cmd.Stdin = strings.NewReader(script.String())
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("nft: %v %s", err, out)
	}
	event, err := m.Next(testContext(t))
	if err != nil || !event.Overrun {
		t.Fatalf("event %+v, %v, want an overrun", event, err)
	}
	for i := range 3 {
		nft(t, "add", "table", "ip", fmt.Sprintf("t%d", i))
		for {
			if event, err = m.Next(testContext(t)); err != nil {
				t.Fatal(err)
			}
			if cmp.Equal(event.Tables, []TableID{{IPv4, fmt.Sprintf("t%d", i)}}) {
				break
			}
		}
	}
}

func TestMonitorEnds(t *testing.T) {
	c := enterNamespace(t)
	m, err := NewMonitor(c)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	time.AfterFunc(20*time.Millisecond, cancel)
	if _, err := m.Next(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("Next after cancel: %v", err)
	}
	time.AfterFunc(20*time.Millisecond, func() { m.Close() })
	if _, err := m.Next(context.Background()); err == nil {
		t.Error("Next after Close: no error")
	}
}
