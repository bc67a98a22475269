package vmops

import (
	"bytes"
	"cmp"
	"compress/zlib"
	"crypto/md5"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/ringwall/ringwall/core"
)

// flatRule is a rule as vmops has it: one for a direction, protocol and pair of
// ports (or type and code), with all its peers. Two with the same would share
// one ipset, and the second would empty it.
type flatRule struct {
	direction  core.Direction
	protocol   string // tcp, udp, icmp, all
	start, end int    // 0, 0 for all; -1, -1 for any ICMP
}

func (f flatRule) compare(o flatRule) int {
	return cmp.Or(cmp.Compare(f.direction, o.direction), strings.Compare(f.protocol, o.protocol), cmp.Compare(f.start, o.start), cmp.Compare(f.end, o.end))
}

// set is the name of the ipset that vmops makes of the rule.
func (f flatRule) set(vm string) string {
	if f.direction == core.Egress {
		vm += "-e"
	}
	if f.start == -1 {
		return vm + f.protocol[:1] + "_any"
	}
	return vm + f.protocol[:1] + strconv.Itoa(f.start) + "_" + strconv.Itoa(f.end)
}

var anywhere = netip.MustParsePrefix("0.0.0.0/0")

// halves of the address space stand for all of it where vmops makes no rule of
// 0.0.0.0/0 (protocol all).
var halves = []netip.Prefix{netip.MustParsePrefix("0.0.0.0/1"), netip.MustParsePrefix("128.0.0.0/1")}

// maxTypes is how many types and codes one range may come to. vmops takes them
// one by one, each with a set of its own.
const maxTypes = 16

// maxPeers is what one of its sets holds; what is beyond it voids the set.
const maxPeers = 65536

// flat takes the entries of groups apart into rules of vmops.
type flat map[flatRule][]netip.Prefix

// add brings in one entry, its remote group as members.
func (f flat) add(e core.Entry, members []netip.Addr) error {
	if e.Family != core.IPv4 {
		return nil // vmops drops all IPv6, and a NIC with IPv6 addresses is refused
	}
	var peers []netip.Prefix
	if e.Peer.Group == "" {
		peers = []netip.Prefix{e.Peer.Prefix}
	} else {
		for _, m := range members {
			if m.Is4() {
				peers = append(peers, netip.PrefixFrom(m, 32))
			}
		}
	}
	rules, err := selectors(e)
	if err != nil {
		return err
	}
	for _, r := range rules {
		f[r] = append(f[r], peers...)
	}
	return nil
}

func selectors(e core.Entry) ([]flatRule, error) {
	r := flatRule{direction: e.Direction}
	switch e.Protocol {
	case core.AnyProtocol:
		r.protocol = "all"
		return []flatRule{r}, nil
	case core.ProtocolTCP, core.ProtocolUDP:
		r.protocol, r.start, r.end = e.Protocol.String(), int(e.Span.First), int(e.Span.Last)
		return []flatRule{r}, nil
	case core.ProtocolICMP:
		r.protocol, r.start, r.end = "icmp", -1, -1
		if e.Span == core.AnySpan {
			return []flatRule{r}, nil
		}
		if int(e.Span.Last)-int(e.Span.First) >= maxTypes {
			return nil, fmt.Errorf("%s: vmops takes ICMP types with one code each, or all of ICMP; name the code: %w", e, core.ErrUnsupported)
		}
		var out []flatRule
		for v := int(e.Span.First); v <= int(e.Span.Last); v++ {
			r.start, r.end = v>>8, v&255
			out = append(out, r)
		}
		return out, nil
	}
	return nil, fmt.Errorf("%s: vmops fails on protocols other than tcp, udp, icmp and any: %w", e, core.ErrUnsupported)
}

// separate splits ranges of ports until no two rules need the same temporary
// set at once: vmops names it by the set's name without - and _, so 1-112 and
// 11-12 would meet.
func (f flat) separate(vm string) error {
	for range 1000 {
		a, b, found := f.meeting(vm)
		if !found {
			return nil
		}
		if a.start >= a.end || a.protocol == "icmp" {
			a = b
		}
		if a.start >= a.end || a.protocol == "icmp" {
			return fmt.Errorf("rules %s and %s of one VM cannot be told apart by vmops: %w", a.set(""), b.set(""), core.ErrUnsupported)
		}
		peers := f[a]
		delete(f, a)
		first, rest := a, a
		first.end, rest.start = a.start, a.start+1
		f[first], f[rest] = append(f[first], peers...), append(f[rest], peers...)
	}
	return fmt.Errorf("the port ranges of one VM cannot be told apart by vmops: %w", core.ErrUnsupported)
}

func (f flat) meeting(vm string) (a, b flatRule, found bool) {
	names := map[string]flatRule{}
	for _, r := range slices.SortedFunc(maps.Keys(f), flatRule.compare) {
		name := temporary(r.set(vm))
		if other, there := names[name]; there {
			return other, r, true
		}
		names[name] = r
	}
	return a, b, false
}

// temporary is the part of a temporary set's name that does not change with the
// clock.
func temporary(set string) string { return strings.NewReplacer("-", "", "_", "").Replace(set) }

// text is the wire form: rules end in a space, lists of CIDRs in NEXT. A rule
// without peers is left out: of an ingress rule nothing would come, and the deny
// of egress has a rule of its own.
func (f flat) text() (string, error) {
	var b strings.Builder
	for _, r := range slices.SortedFunc(maps.Keys(f), flatRule.compare) {
		peers := slices.Clone(f[r])
		slices.SortFunc(peers, func(a, b netip.Prefix) int {
			return cmp.Or(cmp.Compare(b.Bits(), a.Bits()), a.Addr().Compare(b.Addr()))
		})
		peers = slices.Compact(peers)
		if slices.Contains(peers, anywhere) {
			peers = []netip.Prefix{anywhere}
			if r.protocol == "all" {
				peers = halves
			}
		}
		if len(peers) == 0 {
			continue
		}
		if len(peers) > maxPeers {
			return "", fmt.Errorf("%d peers of one rule; a set of vmops holds %d: %w", len(peers), maxPeers, core.ErrUnsupported)
		}
		fmt.Fprintf(&b, "%c:%s;%d;%d;", map[core.Direction]byte{core.Ingress: 'I', core.Egress: 'E'}[r.direction], r.protocol, r.start, r.end)
		for _, p := range peers {
			b.WriteString(p.String() + ",")
		}
		b.WriteString("NEXT ")
	}
	return b.String(), nil
}

// sets are the names of all ipsets of the rules.
func (f flat) sets(vm string) []string {
	var out []string
	for r := range f {
		out = append(out, r.set(vm))
	}
	return out
}

// signature is how vmops tells rules apart.
func signature(rules string) string {
	sum := md5.Sum([]byte(rules))
	return hex.EncodeToString(sum[:])
}

// deflate is the encoding that vmops inflates: zlib, in Base64 on one line.
func deflate(rules string) string {
	var b bytes.Buffer
	w := zlib.NewWriter(&b)
	w.Write([]byte(rules)) // to memory: it cannot fail
	w.Close()
	return base64.StdEncoding.EncodeToString(b.Bytes())
}
