package links_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/drivers/internal/kernel/kerneltest"
	"github.com/ringwall/ringwall/drivers/internal/kernel/links"
	"github.com/vishvananda/netlink"
)

// patience is for machines under load; what is waited for takes milliseconds.
const patience = 10 * time.Second

// watcher keeps a snapshot from reports, as a user of Watch does.
type watcher struct {
	t    *testing.T
	ch   <-chan links.Changes
	Now  links.Snapshot
	last links.Changes
}

func watch(t *testing.T, ns *kerneltest.Namespace) *watcher {
	t.Helper()
	ch, err := links.Watch(t.Context(), links.Options{NetNS: ns.FD()})
	if err != nil {
		t.Fatal(err)
	}
	w := &watcher{t: t, ch: ch}
	w.next()
	return w
}

func (w *watcher) next() links.Changes {
	w.t.Helper()
	select {
	case c, ok := <-w.ch:
		if !ok {
			w.t.Fatal("the watch ended")
		}
		w.Now.Apply(c)
		w.last = c
		return c
	case <-time.After(patience):
		w.t.Fatalf("no report; known: %+v", w.Now)
	}
	panic("unreachable")
}

// until reads reports until f holds.
func (w *watcher) until(what string, f func(links.Changes) bool) {
	w.t.Helper()
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); {
		if f(w.next()) {
			return
		}
	}
	w.t.Fatalf("never: %s; known: %+v", what, w.Now)
}

func TestWatchFollowsBridgesAndPorts(t *testing.T) {
	ns := kerneltest.New(t)
	ns.Run("ip", "link", "add", "br0", "address", "02:00:00:00:00:fe", "type", "bridge", "stp_state", "1", "group_fwd_mask", "0x4000")
	// Made before its bridge, so that its index is lower.
	ns.Run("ip", "link", "add", "eth9", "type", "veth", "peer", "name", "far9")
	ns.Run("ip", "link", "add", "br1", "type", "bridge")
	ns.Run("ip", "link", "set", "eth9", "master", "br1")

	w := watch(t, ns)
	br0 := w.Now.Bridges["br0"]
	want := links.Bridge{
		Name: "br0", Index: br0.Index, MAC: core.MAC{2, 0, 0, 0, 0, 0xfe},
		STP: true, GroupForwardMask: 0x4000,
	}
	if diff := cmp.Diff(want, br0); diff != "" {
		t.Error(diff)
	}
	if p := w.Now.Ports["eth9"]; p.Bridge != "br1" || p.Kind != links.KindVeth || p.Up || p.Carrier {
		t.Errorf("eth9 on br1, down: %+v", p)
	}
	if _, ok := w.Now.Ports["far9"]; ok {
		t.Error("far9 is no port")
	}

	ns.Run("ip", "tuntap", "add", "vnet0", "mode", "tap")
	ns.Run("ip", "link", "set", "vnet0", "master", "br0")
	w.until("vnet0 appears", func(c links.Changes) bool {
		p, ok := w.Now.Ports["vnet0"]
		return ok && p.Kind == links.KindTap && p.Bridge == "br0" && !p.Carrier
	})
	ns.Run("ip", "link", "set", "eth9", "up")
	ns.Run("ip", "link", "set", "far9", "up")
	w.until("eth9 has carrier", func(links.Changes) bool { return w.Now.Ports["eth9"].Up && w.Now.Ports["eth9"].Carrier })

	ns.Run("ip", "link", "set", "br0", "address", "02:00:00:00:00:fd")
	w.until("br0 has another MAC", func(c links.Changes) bool {
		return len(c.Bridges) == 1 && c.Bridges[0].Before.MAC[5] == 0xfe && c.Bridges[0].After.MAC[5] == 0xfd
	})

	ns.Run("ip", "link", "set", "vnet0", "master", "br1")
	w.until("vnet0 moves", func(links.Changes) bool { return w.Now.Ports["vnet0"].Bridge == "br1" })
	ns.Run("ip", "link", "set", "br1", "name", "cloudbr1")
	w.until("its ports follow a renamed bridge", func(links.Changes) bool {
		return w.Now.Ports["vnet0"].Bridge == "cloudbr1" && w.Now.Ports["eth9"].Bridge == "cloudbr1"
	})
	ns.Run("ip", "link", "set", "vnet0", "nomaster")
	w.until("vnet0 is unplugged", func(links.Changes) bool { _, ok := w.Now.Ports["vnet0"]; return !ok })
	ns.Run("ip", "link", "del", "cloudbr1")
	w.until("its ports go with a bridge", func(links.Changes) bool {
		_, port := w.Now.Ports["eth9"]
		_, bridge := w.Now.Bridges["cloudbr1"]
		return !port && !bridge
	})

	listed, err := links.List(t.Context(), links.Options{NetNS: ns.FD()})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(listed, w.Now); diff != "" {
		t.Errorf("followed and listed differ: %s", diff)
	}
}

func TestPortMadeAgainIsAnotherOne(t *testing.T) {
	ns := kerneltest.New(t)
	ns.Run("ip", "link", "add", "br0", "type", "bridge")
	ns.Run("ip", "tuntap", "add", "vnet0", "mode", "tap")
	ns.Run("ip", "link", "set", "vnet0", "master", "br0")
	w := watch(t, ns)
	first := w.Now.Ports["vnet0"].Index

	// The reader is away meanwhile.
	ns.Run("ip", "link", "del", "vnet0")
	ns.Run("ip", "tuntap", "add", "vnet0", "mode", "tap")
	ns.Run("ip", "link", "set", "vnet0", "master", "br0")
	var vanished, appeared bool
	w.until("vnet0 is a new one", func(c links.Changes) bool {
		for _, p := range c.Ports {
			vanished = vanished || p.Before != nil && p.After == nil && p.Before.Index == first
			appeared = appeared || p.Before == nil && p.After != nil && p.After.Index != first
		}
		return vanished && appeared
	})
	if got := w.Now.Ports["vnet0"].Index; got == first || got == 0 {
		t.Errorf("vnet0 has index %d, had %d", got, first)
	}
}

func TestNFCall(t *testing.T) {
	ns := kerneltest.New(t)
	ns.Run("ip", "link", "add", "br0", "type", "bridge")
	ns.Run("ip", "link", "set", "br0", "up")
	ns.Run("ip", "link", "add", "veth0", "type", "veth", "peer", "name", "veth1")
	o := links.Options{NetNS: ns.FD()}
	w := watch(t, ns)
	if got := w.Now.Bridges["br0"].NFCall; got != (links.NFCall{}) {
		t.Errorf("a new bridge's switches are off, got %+v", got)
	}
	if err := links.SetNFCall(t.Context(), o, "br0", links.AllNFCall); err != nil {
		t.Fatal(err)
	}
	w.until("all on", func(links.Changes) bool { return w.Now.Bridges["br0"].NFCall == links.AllNFCall })
	if out := ns.Run("ip", "-d", "link", "show", "br0"); !strings.Contains(out, "nf_call_iptables 1 nf_call_ip6tables 1 nf_call_arptables 1") {
		t.Errorf("ip(8) shows %s", out)
	}

	// Each by itself, the way ip(8) clears it.
	for _, c := range []struct {
		flag string
		left links.NFCall
	}{
		{"nf_call_iptables", links.NFCall{IP6Tables: true, ARPTables: true}},
		{"nf_call_ip6tables", links.NFCall{ARPTables: true}},
		{"nf_call_arptables", links.NFCall{}},
	} {
		ns.Run("ip", "link", "set", "br0", "type", "bridge", c.flag, "0")
		w.until(c.flag+" cleared", func(ch links.Changes) bool {
			return len(ch.Bridges) == 1 && ch.Bridges[0].Before.NFCall != c.left && ch.Bridges[0].After.NFCall == c.left
		})
	}

	// The kernel is silent about a bridge that is down, until it goes up.
	ns.Run("ip", "link", "set", "br0", "down")
	w.until("br0 down", func(links.Changes) bool { return !w.Now.Bridges["br0"].Up })
	ns.Run("ip", "link", "set", "br0", "type", "bridge", "nf_call_arptables", "1")
	ns.Run("ip", "link", "set", "br0", "up")
	w.until("br0 up, with what was set meanwhile", func(links.Changes) bool {
		b := w.Now.Bridges["br0"]
		return b.Up && b.NFCall == links.NFCall{ARPTables: true}
	})

	// And the way brctl-era scripts do. sysfs shows the namespace that mounts it.
	if err := links.SetNFCall(t.Context(), o, "br0", links.AllNFCall); err != nil {
		t.Fatal(err)
	}
	w.until("all on again", func(links.Changes) bool { return w.Now.Bridges["br0"].NFCall == links.AllNFCall })
	ns.Run("unshare", "--mount", "sh", "-c", "mount -t sysfs none /sys && echo 0 > /sys/class/net/br0/bridge/nf_call_iptables")
	w.until("cleared through sysfs", func(links.Changes) bool {
		return w.Now.Bridges["br0"].NFCall == links.NFCall{IP6Tables: true, ARPTables: true}
	})

	if err := links.SetNFCall(t.Context(), o, "br7", links.AllNFCall); !errors.Is(err, core.ErrNotFound) {
		t.Errorf("no such bridge: %v", err)
	}
	if err := links.SetNFCall(t.Context(), o, "veth0", links.AllNFCall); !errors.Is(err, core.ErrUnsupported) {
		t.Errorf("not a bridge: %v", err)
	}
}

// A storm that nobody reads meanwhile is summed up.
func TestStormIsSummedUp(t *testing.T) {
	ns := kerneltest.New(t)
	ns.Run("ip", "link", "add", "br0", "up", "type", "bridge")
	w := watch(t, ns)
	const n = 200
	var batch strings.Builder
	for i := range n {
		fmt.Fprintf(&batch, "tuntap add vnet%d mode tap\nlink set vnet%d master br0 up\n", i, i)
	}
	for i := range n / 2 {
		fmt.Fprintf(&batch, "link del vnet%d\n", i)
	}
	ns.RunInput(batch.String(), "ip", "-batch", "-")
	ns.Run("ip", "link", "add", "last", "type", "veth")
	ns.Run("ip", "link", "set", "last", "master", "br0")
	time.Sleep(50 * time.Millisecond) // or the reports below come in many parts
	reports := 0
	w.until("last appears", func(links.Changes) bool { reports++; _, ok := w.Now.Ports["last"]; return ok })
	listed, err := links.List(t.Context(), links.Options{NetNS: ns.FD()})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(listed, w.Now); diff != "" {
		t.Errorf("followed and listed differ: %s", diff)
	}
	if got := len(w.Now.PortsOf("br0")); got != n/2+1 {
		t.Errorf("%d ports, want %d", got, n/2+1)
	}
	if reports > 4 {
		t.Errorf("%d reports of a storm that was over", reports)
	}
}

func TestReadStats(t *testing.T) {
	ns, far := kerneltest.New(t), kerneltest.New(t)
	ns.Run("ip", "link", "add", "vnet0", "up", "type", "veth", "peer", "name", "eth0", "netns", fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), far.FD()))
	far.Run("ip", "link", "set", "eth0", "up")
	ns.Run("ip", "addr", "add", "10.9.0.1/24", "dev", "vnet0")
	far.Run("ip", "addr", "add", "10.9.0.2/24", "dev", "eth0")
	read := func() links.Stats {
		s, err := links.ReadStats(t.Context(), links.Options{NetNS: ns.FD()})
		if err != nil {
			t.Fatal(err)
		}
		return s["vnet0"]
	}
	before := read()
	far.Run("ping", "-q", "-c", "3", "-i", "0.02", "-s", "1000", "10.9.0.1")
	after := read()
	for what, d := range map[string]struct{ packets, bytes uint64 }{
		"received": {after.RxPackets - before.RxPackets, after.RxBytes - before.RxBytes},
		"sent":     {after.TxPackets - before.TxPackets, after.TxBytes - before.TxBytes},
	} {
		// Three pings of 1,042 bytes, ARP and a few of the kernel's own.
		if d.packets < 3 || d.bytes < 3*1042 || d.bytes > 2*3*1042 {
			t.Errorf("%s %d packets, %d bytes", what, d.packets, d.bytes)
		}
	}
}

func TestWatchEndsWithItsContext(t *testing.T) {
	ns := kerneltest.New(t)
	ctx, cancel := context.WithCancel(t.Context())
	ch, err := links.Watch(ctx, links.Options{NetNS: ns.FD()})
	if err != nil {
		t.Fatal(err)
	}
	<-ch
	cancel()
	select {
	case _, ok := <-ch:
		if ok {
			t.Error("a report after the end")
		}
	case <-time.After(patience):
		t.Error("the channel stays open")
	}
}

// How long a new port stays unknown.
func BenchmarkPortReported(b *testing.B) {
	ns := kerneltest.New(b)
	ns.Run("ip", "link", "add", "br0", "up", "type", "bridge")
	ch, err := links.Watch(b.Context(), links.Options{NetNS: ns.FD()})
	if err != nil {
		b.Fatal(err)
	}
	ns.Do(func() error {
		h, err := netlink.NewHandle()
		if err != nil {
			return err
		}
		defer h.Close()
		br, err := h.LinkByName("br0")
		if err != nil {
			return err
		}
		veth := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "vnet0"}, PeerName: "far0"}
		if err := h.LinkAdd(veth); err != nil {
			return err
		}
		var now links.Snapshot
		until := func(there bool) {
			for {
				if _, ok := now.Ports["vnet0"]; ok == there {
					return
				}
				now.Apply(<-ch)
			}
		}
		for b.Loop() {
			if err := h.LinkSetMaster(veth, br); err != nil {
				return err
			}
			until(true)
			b.StopTimer()
			if err := h.LinkSetNoMaster(veth); err != nil {
				return err
			}
			until(false)
			b.StartTimer()
		}
		return nil
	})
}
