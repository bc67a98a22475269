package frame_test

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/ringwall/ringwall/conformance/lab/frame"
	"github.com/ringwall/ringwall/core"
	"pgregory.net/rapid"
)

var (
	macA = core.MAC{2, 0, 0, 0, 0, 0xa}
	macB = core.MAC{2, 0, 0, 0, 0, 0xb}
	v4   = frame.Flow{SrcMAC: macA, DstMAC: macB, Src: netip.MustParseAddr("10.0.0.1"), Dst: netip.MustParseAddr("10.0.0.2")}
	v6   = frame.Flow{SrcMAC: macA, DstMAC: macB, Src: netip.MustParseAddr("fd00::1"), Dst: netip.MustParseAddr("fd00::2")}
)

// TestKnownFrames compares with bytes worked out by hand from the RFCs.
func TestKnownFrames(t *testing.T) {
	for name, c := range map[string]struct {
		got  frame.Frame
		want []byte
	}{
		"arp request": {frame.ARPRequest(macA, v4.Src, v4.Dst), []byte{
			255, 255, 255, 255, 255, 255, 2, 0, 0, 0, 0, 0xa, 8, 6,
			0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 0xa, 10, 0, 0, 1, 0, 0, 0, 0, 0, 0, 10, 0, 0, 2}},
		"udp4": {v4.UDP(1, 2, "ab"), []byte{
			2, 0, 0, 0, 0, 0xb, 2, 0, 0, 0, 0, 0xa, 8, 0,
			0x45, 0, 0, 30, 0, 0, 0, 0, 64, 17, 0x66, 0xcd, 10, 0, 0, 1, 10, 0, 0, 2,
			0, 1, 0, 2, 0, 10, 0x8a, 0x72, 'a', 'b'}},
		"qinq": {frame.Frame(append(make([]byte, 12), 8, 0, 1)).Tagged(frame.VLAN{TPID: frame.TypeQinQ, ID: 5, Priority: 3, DropEligible: true}, frame.VLAN{ID: 4095}), append(make([]byte, 12),
			0x88, 0xa8, 0x70, 5, 0x81, 0, 0x0f, 0xff, 8, 0, 1)},
		"hop-by-hop": {frame.Build(frame.HopByHop{Options: []byte{5, 2, 0, 0}}, frame.ICMPv6{Type: 143}), []byte{
			58, 0, 5, 2, 0, 0, 1, 0, 143, 0, 0x70, 0xff, 0, 0, 0, 0}},
	} {
		if d := cmp.Diff(c.want, []byte(c.got)); d != "" {
			t.Errorf("%s (-want +got):\n%s", name, d)
		}
	}
}

// TestFragmentsReassemble cuts packets of any size into pieces of any size, tags
// and extension headers in front or not, and puts them together again.
func TestFragmentsReassemble(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		payload := frame.Payload(rapid.SliceOfN(rapid.Byte(), 1, 3000).Draw(t, "payload"))
		size := 8 * rapid.IntRange(1, 180).Draw(t, "size")
		fl := rapid.SampledFrom([]frame.Flow{v4, v6}).Draw(t, "flow")
		whole := fl.Packet(frame.UDP{SrcPort: 1, DstPort: 2}, payload)
		if fl == v6 && rapid.Bool().Draw(t, "hop-by-hop") {
			whole = fl.Packet(frame.HopByHop{}, frame.UDP{SrcPort: 1, DstPort: 2}, payload)
		}
		if rapid.Bool().Draw(t, "tagged") {
			whole = whole.Tagged(frame.VLAN{ID: 7})
		}
		var got []byte
		pieces := whole.Fragments(size, 77)
		for i, p := range pieces {
			offset, more, data := fragmentOf(p)
			if offset != len(got) || more != (i < len(pieces)-1) {
				t.Fatalf("piece %d: offset %d, more %v", i, offset, more)
			}
			got = append(got, data...)
		}
		if want := []byte(whole[len(whole)-len(payload)-8:]); !bytes.Equal(got, want) {
			t.Fatalf("reassembled %x, want %x", got, want)
		}
	})
}

// fragmentOf reads a fragment, by fixed offsets of its own.
func fragmentOf(f frame.Frame) (offset int, more bool, data []byte) {
	b := f.Body()
	if f.EtherType() == frame.TypeIPv4 {
		flags := binary.BigEndian.Uint16(b[6:])
		return int(flags&0x1fff) * 8, flags&0x2000 != 0, b[20:]
	}
	at := 40
	if b[6] == 0 {
		at = 48
	}
	off := binary.BigEndian.Uint16(b[at+2:])
	return int(off &^ 7), off&1 != 0, b[at+8:]
}

func TestAlterations(t *testing.T) {
	f := v4.UDP(1, 2, "x")
	keep := append(frame.Frame(nil), f...)
	if g := f.From(macB).To(macA); g.Src() != macB || g.Dst() != macA || !bytes.Equal(g[12:], f[12:]) {
		t.Errorf("From, To: %x", []byte(g))
	}
	if g := f.Padded(60); len(g) != 60 || !bytes.Equal(g[:len(f)], f) {
		t.Errorf("Padded: %x", []byte(g))
	}
	if g := f.With(12, 0x88, 0xb5); g.EtherType() != 0x88b5 {
		t.Errorf("With: %x", []byte(g))
	}
	if g := f.Tagged(frame.VLAN{ID: 1}, frame.VLAN{ID: 2}); g.EtherType() != frame.TypeIPv4 || !bytes.Equal(g.Body(), f.Body()) {
		t.Errorf("Tagged: %x", []byte(g))
	}
	if !bytes.Equal(f, keep) {
		t.Error("an alteration changed the original")
	}
	if got, want := f.String(), "02:00:00:00:00:0a > 02:00:00:00:00:0b Ethernet/IPv4/UDP 10.0.0.1->10.0.0.2 1->2 (43 bytes)"; got != want {
		t.Errorf("String: %s\nwant    %s", got, want)
	}
	if got := (frame.Frame{1, 2}).String(); got != "2 bytes, too short for a frame" {
		t.Errorf("String of two bytes: %s", got)
	}
}

func TestErrorQuotesWhatRFCsAskFor(t *testing.T) {
	long := make([]byte, 1400)
	e4 := v4.Error(frame.ICMP{Type: frame.ICMPUnreachable, Code: frame.CodePortUnreachable}, v4.Reverse().UDP(1, 2, string(long)))
	if got, want := len(e4), 14+20+8+20+8; got != want {
		t.Errorf("an ICMP error has %d bytes, want %d", got, want)
	}
	e6 := v6.Error(frame.ICMPv6{Type: frame.ICMPv6TooBig, Rest: 1280}, v6.Reverse().UDP(1, 2, string(long)))
	if got, want := len(e6), 14+1280; got != want {
		t.Errorf("an ICMPv6 error has %d bytes, want %d", got, want)
	}
}
