package core

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"net/netip"
)

// Fingerprint identifies the content of a Ruleset. It is the XOR of the SHA-256
// sums of all its parts, so the order of maps has no say.
type Fingerprint [32]byte

func (f Fingerprint) String() string { return hex.EncodeToString(f[:]) }

// Short is enough for people.
func (f Fingerprint) Short() string { return hex.EncodeToString(f[:6]) }

// MarshalText and UnmarshalText write and read the hexadecimal form.
func (f Fingerprint) MarshalText() ([]byte, error) { return []byte(f.String()), nil }

func (f *Fingerprint) UnmarshalText(b []byte) error {
	n, err := hex.Decode(f[:], b)
	if err != nil || n != len(f) {
		return fmt.Errorf("%q is not a fingerprint: %w", b, ErrInvalid)
	}
	return nil
}

func (f *Fingerprint) mix(part []byte) {
	sum := sha256.Sum256(part)
	for i := range f {
		f[i] ^= sum[i]
	}
}

// Fingerprint reads the whole Ruleset.
func (r Ruleset) Fingerprint() Fingerprint {
	var f Fingerprint
	var b canonical
	b.options(r.Options)
	f.mix(b)
	for name, g := range r.Groups {
		b = append(b[:0], 'G')
		b.str(name)
		f.mix(b)
		for _, e := range g.Entries {
			b = append(b[:0], 'E')
			b.str(name)
			b.entry(e)
			f.mix(b)
		}
	}
	for name, s := range r.Sets {
		b = append(b[:0], 'S')
		b.str(name)
		f.mix(b)
		for _, a := range s.Members {
			b = append(b[:0], 'M')
			b.str(name)
			b.addr(a)
			f.mix(b)
		}
	}
	for _, n := range r.NICs {
		b = append(b[:0], 'N')
		b.nic(n)
		f.mix(b)
	}
	return f
}

// canonical is an unambiguous encoding: lengths before strings and lists.
type canonical []byte

func (b *canonical) num(n int)    { *b = binary.BigEndian.AppendUint32(*b, uint32(n)) }
func (b *canonical) str(s string) { b.num(len(s)); *b = append(*b, s...) }
func (b *canonical) bool(v bool) {
	if v {
		*b = append(*b, 1)
	} else {
		*b = append(*b, 0)
	}
}

func (b *canonical) addr(a netip.Addr) {
	*b = append(*b, byte(a.BitLen()/8))
	*b = append(*b, a.AsSlice()...)
}

func (b *canonical) prefix(p netip.Prefix) { b.addr(p.Addr()); b.num(p.Bits()) }

func (b *canonical) patterns(ps []Pattern) {
	b.num(len(ps))
	for _, p := range ps {
		b.str(string(p))
	}
}

func (b *canonical) options(o Options) {
	*b = append((*b)[:0], 'O')
	b.patterns(o.Bridges)
	b.patterns(o.Unmanaged)
	b.patterns(o.VMPorts)
	b.patterns(o.Uplinks)
	*b = append(*b, byte(o.EgressDefault), byte(o.Multicast))
	b.bool(o.AllowDNS)
	b.bool(o.CountOnly)
}

func (b *canonical) entry(e Entry) {
	*b = append(*b, byte(e.Direction), byte(e.Family))
	b.num(int(e.Protocol))
	b.num(int(e.Span.First))
	b.num(int(e.Span.Last))
	b.str(e.Peer.Group)
	b.prefix(e.Peer.Prefix)
}

func (b *canonical) nic(n NICPolicy) {
	b.str(string(n.Key.VM))
	*b = append(*b, n.Key.MAC[:]...)
	b.str(n.VM)
	*b = append(*b, byte(n.Kind))
	b.str(n.Bridge)
	b.num(len(n.Devices))
	for _, d := range n.Devices {
		b.str(d)
	}
	b.num(len(n.Addresses))
	for _, a := range n.Addresses {
		b.addr(a)
	}
	b.num(len(n.Pairs))
	for _, p := range n.Pairs {
		b.prefix(p.Prefix)
		*b = append(*b, p.MAC[:]...)
	}
	b.bool(n.SpoofingAllowed)
	b.num(len(n.Groups))
	for _, g := range n.Groups {
		b.str(g)
	}
	b.bool(n.EgressDeny4)
	b.bool(n.EgressDeny6)
}
