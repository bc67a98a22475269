package links

import (
	"encoding/binary"
	"maps"
	"slices"
	"strconv"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/drivers/internal/kernel/nl"
	"golang.org/x/sys/unix"
	"pgregory.net/rapid"
)

// Whatever happens in whatever order, a snapshot kept from the changes is what
// the links say, however many are summed up in one report.
func TestChangesAddUp(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		anyLink := rapid.Custom(func(t *rapid.T) link {
			l := link{
				gone:   rapid.IntRange(0, 4).Draw(t, "gone") == 0,
				index:  rapid.IntRange(1, 6).Draw(t, "index"),
				master: rapid.IntRange(0, 6).Draw(t, "master"),
				kind:   rapid.SampledFrom([]Kind{KindTap, kindBridge, kindOpenVSwitch, "bond"}).Draw(t, "kind"),
				flags:  rapid.SampledFrom([]uint32{0, unix.IFF_UP}).Draw(t, "flags"),
			}
			// A name is one device's at a time.
			l.name = rapid.SampledFrom([]string{"a", "b"}).Draw(t, "name") + strconv.Itoa(l.index)
			return l
		})
		m := newMirror()
		links := map[int]link{}
		var kept Snapshot
		for range rapid.IntRange(1, 30).Draw(t, "steps") {
			b := nl.Batch[link]{Whole: rapid.IntRange(0, 5).Draw(t, "whole") == 0, Items: rapid.SliceOfN(anyLink, 0, 4).Draw(t, "links")}
			if b.Whole {
				clear(links)
				for _, l := range b.Items { // a dump lists each once
					links[l.index] = l
				}
				b.Items = slices.Collect(maps.Values(links))
			}
			for _, l := range b.Items {
				if l.gone {
					delete(links, l.index)
				} else {
					links[l.index] = l
				}
			}
			m.take(b)
			if rapid.Bool().Draw(t, "report") {
				kept.Apply(m.changes())
				m.reported()
				if c := m.changes(); !c.empty() {
					t.Fatalf("left over: %+v", c)
				}
			}
		}
		kept.Apply(m.changes())
		want := Snapshot{Bridges: map[string]Bridge{}, Ports: map[string]Port{}}
		for _, l := range links {
			if b := l.bridge(); b != nil {
				want.Bridges[b.Name] = *b
			}
			if p := l.port(links[l.master]); p != nil {
				want.Ports[p.Name] = *p
			}
		}
		if diff := cmp.Diff(want, kept); diff != "" {
			t.Fatal(diff)
		}
	})
}

// Two devices that swap their names keep both.
func TestApplySwap(t *testing.T) {
	a, b := Port{Name: "a", Index: 1}, Port{Name: "b", Index: 2}
	swappedA, swappedB := Port{Name: "b", Index: 1}, Port{Name: "a", Index: 2}
	var s Snapshot
	s.Apply(Changes{Ports: []Change[Port]{{After: &a}, {After: &b}}})
	s.Apply(Changes{Ports: []Change[Port]{{&a, &swappedA}, {&b, &swappedB}}})
	if diff := cmp.Diff(map[string]Port{"a": swappedB, "b": swappedA}, s.Ports); diff != "" {
		t.Error(diff)
	}
}

func message(typ uint16, family byte, attrs func(*nl.Buffer)) nl.Message {
	b := make(nl.Buffer, unix.SizeofIfInfomsg)
	b[0] = family
	binary.NativeEndian.PutUint32(b[4:], 7)
	binary.NativeEndian.PutUint32(b[8:], unix.IFF_UP|unix.IFF_LOWER_UP)
	attrs(&b)
	return nl.Message{Type: typ, Data: b}
}

// What not every kernel can be made to say.
func TestParse(t *testing.T) {
	openvswitch := func(b *nl.Buffer) {
		b.Text(unix.IFLA_IFNAME, "ovsbr0")
		b.Attr(unix.IFLA_ADDRESS, 2, 0, 0, 0, 0, 1)
		end := b.Nest(unix.IFLA_LINKINFO)
		b.Text(unix.IFLA_INFO_KIND, "openvswitch")
		end()
	}
	filtering := func(b *nl.Buffer) {
		b.Text(unix.IFLA_IFNAME, "br0")
		end := b.Nest(unix.IFLA_LINKINFO)
		b.Text(unix.IFLA_INFO_KIND, "bridge")
		endData := b.Nest(unix.IFLA_INFO_DATA)
		b.Attr(unix.IFLA_BR_VLAN_FILTERING, 1)
		endData()
		end()
	}
	for _, c := range []struct {
		name string
		m    nl.Message
		ok   bool
		want *Bridge
	}{
		{"open vswitch", message(unix.RTM_NEWLINK, unix.AF_UNSPEC, openvswitch), true, &Bridge{Name: "ovsbr0", Index: 7, MAC: core.MAC{2, 0, 0, 0, 0, 1}, Up: true, OpenVSwitch: true}},
		{"VLAN filtering", message(unix.RTM_NEWLINK, unix.AF_UNSPEC, filtering), true, &Bridge{Name: "br0", Index: 7, Up: true, VLANFiltering: true}},
		{"a bridge's word of its port", message(unix.RTM_DELLINK, unix.AF_BRIDGE, filtering), false, nil},
		{"another message", message(unix.RTM_NEWADDR, unix.AF_UNSPEC, filtering), false, nil},
		{"cut short", nl.Message{Type: unix.RTM_NEWLINK, Data: make([]byte, 8)}, false, nil},
	} {
		l, ok := parse(c.m)
		if ok != c.ok {
			t.Errorf("%s: of interest: %v", c.name, ok)
		}
		if diff := cmp.Diff(c.want, l.bridge()); diff != "" {
			t.Errorf("%s: %s", c.name, diff)
		}
	}
}
