package wire

import (
	"github.com/ringwall/ringwall/core"
	pb "github.com/ringwall/ringwall/core/plugin/proto"
)

// anyProtocol stands for core.AnyProtocol: 0, which an absent field would be,
// must not widen a rule.
const anyProtocol = 256

func encodeOptions(o core.Options) *pb.Options {
	return &pb.Options{
		Bridges:       encodePatterns(o.Bridges),
		Unmanaged:     encodePatterns(o.Unmanaged),
		VmPorts:       encodePatterns(o.VMPorts),
		Uplinks:       encodePatterns(o.Uplinks),
		EgressDefault: egressDefaults.encode(o.EgressDefault),
		AllowDns:      o.AllowDNS,
		Multicast:     multicastModes.encode(o.Multicast),
		CountOnly:     o.CountOnly,
	}
}

func decodeOptions(m *pb.Options) (o core.Options, err error) {
	if err = known(m); err != nil {
		return o, err
	}
	for _, l := range []struct {
		field string
		in    []string
		out   *[]core.Pattern
	}{
		{"bridges", m.GetBridges(), &o.Bridges},
		{"unmanaged", m.GetUnmanaged(), &o.Unmanaged},
		{"vm_ports", m.GetVmPorts(), &o.VMPorts},
		{"uplinks", m.GetUplinks(), &o.Uplinks},
	} {
		if *l.out, err = decodeAll(l.in, decodePattern); err != nil {
			return o, under(l.field, err)
		}
	}
	if o.EgressDefault, err = egressDefaults.decode(m.GetEgressDefault()); err != nil {
		return o, under("egress_default", err)
	}
	if o.Multicast, err = multicastModes.decode(m.GetMulticast()); err != nil {
		return o, under("multicast", err)
	}
	o.AllowDNS, o.CountOnly = m.GetAllowDns(), m.GetCountOnly()
	return o, nil
}

func encodePatterns(in []core.Pattern) []string {
	return encodeAll(in, func(p core.Pattern) string { return string(p) })
}

func decodePattern(s string) (core.Pattern, error) {
	p, err := core.ParsePattern(s)
	if err != nil {
		return "", malformed("", "%q: %v", s, err)
	}
	return p, nil
}

func encodeEntry(e core.Entry) *pb.Entry {
	m := &pb.Entry{
		Direction: directions.encode(e.Direction),
		Family:    uint32(e.Family),
		Protocol:  uint32(e.Protocol),
		First:     uint32(e.Span.First),
		Last:      uint32(e.Span.Last),
		Prefix:    encodePrefix(e.Peer.Prefix),
		Group:     e.Peer.Group,
	}
	if e.Protocol == core.AnyProtocol {
		m.Protocol = anyProtocol
	}
	return m
}

func decodeEntry(m *pb.Entry) (e core.Entry, err error) {
	if err = known(m); err != nil {
		return e, err
	}
	if e.Direction, err = directions.decode(m.GetDirection()); err != nil {
		return e, under("direction", err)
	}
	switch f := core.Family(m.GetFamily()); {
	case m.GetFamily() > 6, f != core.IPv4 && f != core.IPv6:
		return e, malformed("family", "%d is neither 4 nor 6", m.GetFamily())
	default:
		e.Family = f
	}
	switch p := m.GetProtocol(); {
	case p == anyProtocol:
		e.Protocol = core.AnyProtocol
	case p == 0, p > anyProtocol:
		return e, malformed("protocol", "%d is not a protocol", p)
	default:
		e.Protocol = core.Protocol(p)
	}
	if e.Span.First, err = port(m.GetFirst()); err != nil {
		return e, under("first", err)
	}
	if e.Span.Last, err = port(m.GetLast()); err != nil {
		return e, under("last", err)
	}
	if e.Span.First > e.Span.Last {
		return e, malformed("last", "the range %d-%d ends before it starts", e.Span.First, e.Span.Last)
	}
	if m.GetGroup() != "" {
		if len(m.GetPrefix()) > 0 {
			return e, malformed("prefix", "both a prefix and a group")
		}
		e.Peer.Group, err = name(m.GetGroup())
		return e, under("group", err)
	}
	if e.Peer.Prefix, err = decodePrefix(m.GetPrefix()); err != nil {
		return e, under("prefix", err)
	}
	if core.FamilyOf(e.Peer.Prefix.Addr()) != e.Family {
		return e, malformed("prefix", "%s in an entry of %s", e.Peer.Prefix, e.Family)
	}
	return e, nil
}

func encodeNICPolicy(n core.NICPolicy) *pb.NICPolicy {
	return &pb.NICPolicy{
		Key:             encodeNICKey(n.Key),
		Vm:              n.VM,
		Kind:            vmKinds.encode(n.Kind),
		Bridge:          n.Bridge,
		Devices:         n.Devices,
		Addresses:       encodeAll(n.Addresses, encodeAddr),
		Pairs:           encodeAll(n.Pairs, encodePair),
		SpoofingAllowed: n.SpoofingAllowed,
		Groups:          n.Groups,
		EgressOpen4:     !n.EgressDeny4,
		EgressOpen6:     !n.EgressDeny6,
	}
}

func decodeNICPolicy(m *pb.NICPolicy) (n core.NICPolicy, err error) {
	if err = known(m); err != nil {
		return n, err
	}
	n = core.NICPolicy{
		SpoofingAllowed: m.GetSpoofingAllowed(),
		EgressDeny4:     !m.GetEgressOpen4(),
		EgressDeny6:     !m.GetEgressOpen6(),
	}
	if n.Key, err = decodeNICKey(m.GetKey()); err != nil {
		return n, under("key", err)
	}
	if n.VM, err = nameOrNone(m.GetVm()); err != nil {
		return n, under("vm", err)
	}
	if n.Kind, err = vmKinds.decode(m.GetKind()); err != nil {
		return n, under("kind", err)
	}
	if n.Bridge, err = nameOrNone(m.GetBridge()); err != nil {
		return n, under("bridge", err)
	}
	if n.Devices, err = names(m.GetDevices()); err != nil {
		return n, under("devices", err)
	}
	if n.Addresses, err = decodeAll(m.GetAddresses(), decodeAddr); err != nil {
		return n, under("addresses", err)
	}
	if n.Pairs, err = decodeAll(m.GetPairs(), decodePair); err != nil {
		return n, under("pairs", err)
	}
	if n.Groups, err = names(m.GetGroups()); err != nil {
		return n, under("groups", err)
	}
	return n, nil
}
