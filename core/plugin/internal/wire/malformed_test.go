package wire

import (
	"errors"
	"io"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/ringwall/ringwall/core"
	pb "github.com/ringwall/ringwall/core/plugin/proto"
)

func wantMalformed(t *testing.T, what, path string, err error) {
	t.Helper()
	var m *Malformed
	if !errors.As(err, &m) {
		t.Errorf("%s: taken, or %v", what, err)
		return
	}
	if m.Path != path {
		t.Errorf("%s: path %q (%v), want %q", what, m.Path, err, path)
	}
}

// with makes a valid message and spoils it.
func with[M proto.Message](m M, spoil func(M)) M { spoil(m); return m }

func TestMalformedInstances(t *testing.T) {
	valid := func() *pb.Instance {
		return &pb.Instance{Key: "k", Kind: pb.VMKind_VM_KIND_USER, Nics: []*pb.NIC{{Mac: []byte{2, 0, 0, 0, 0, 1}}}}
	}
	if _, err := decodeInstance(valid()); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		what, path string
		spoil      func(*pb.Instance)
	}{
		{"no key", "key", func(m *pb.Instance) { m.Key = "" }},
		{"escape in a name", "name", func(m *pb.Instance) { m.Name = "a\x1b[2J" }},
		{"long name", "name", func(m *pb.Instance) { m.Name = strings.Repeat("x", 256) }},
		{"no kind", "kind", func(m *pb.Instance) { m.Kind = 0 }},
		{"a kind of tomorrow", "kind", func(m *pb.Instance) { m.Kind = 77 }},
		{"short MAC", "nics[0].mac", func(m *pb.Instance) { m.Nics[0].Mac = []byte{1, 2} }},
		{"multicast MAC", "nics[0].mac", func(m *pb.Instance) { m.Nics[0].Mac = []byte{1, 0, 0, 0, 0, 1} }},
		{"no MAC", "nics[0].mac", func(m *pb.Instance) { m.Nics[0].Mac = nil }},
		{"one MAC twice", "nics", func(m *pb.Instance) { m.Nics = append(m.Nics, m.Nics[0]) }},
		{"5-octet address", "nics[0].addresses[0]", func(m *pb.Instance) { m.Nics[0].Addresses = [][]byte{{1, 2, 3, 4, 5}} }},
		{"empty device", "nics[0].devices[1]", func(m *pb.Instance) { m.Nics[0].Devices = []string{"vnet0", ""} }},
		{"/40 of IPv4", "nics[0].pairs[0].prefix", func(m *pb.Instance) { m.Nics[0].Pairs = []*pb.AddressPair{{Prefix: []byte{10, 0, 0, 0, 40}}} }},
		{"no prefix", "nics[0].pairs[0].prefix", func(m *pb.Instance) { m.Nics[0].Pairs = []*pb.AddressPair{{}} }},
		{"unknown field", "nics[0]", func(m *pb.Instance) { m.Nics[0].ProtoReflect().SetUnknown(unknownField()) }},
	} {
		_, err := decodeInstance(with(valid(), c.spoil))
		wantMalformed(t, c.what, c.path, err)
	}
	var d InstanceDecoder
	wantMalformed(t, "one VM twice", "instances[1]", d.Add(&pb.ListResponse{Instances: []*pb.Instance{valid(), valid()}}))
	_, err := DecodeVMEvent(&pb.WatchResponse{Kind: pb.VMEventKind_VM_EVENT_KIND_STARTED})
	wantMalformed(t, "event without a VM", "instance.key", err)
	_, err = DecodeVMEvent(&pb.WatchResponse{})
	wantMalformed(t, "event without a kind", "kind", err)
}

func TestMalformedRulesets(t *testing.T) {
	entry := func() *pb.Entry {
		return &pb.Entry{Direction: pb.Direction_DIRECTION_INGRESS, Family: 4, Protocol: 6, First: 1, Last: 2, Prefix: []byte{10, 0, 0, 0, 8}}
	}
	if _, err := decodeEntry(entry()); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		what, path string
		spoil      func(*pb.Entry)
	}{
		{"no direction", "direction", func(m *pb.Entry) { m.Direction = 0 }},
		{"family 5", "family", func(m *pb.Entry) { m.Family = 5 }},
		{"family that fits after truncation", "family", func(m *pb.Entry) { m.Family = 256 + 4 }},
		{"protocol 0", "protocol", func(m *pb.Entry) { m.Protocol = 0 }},
		{"protocol 257", "protocol", func(m *pb.Entry) { m.Protocol = 257 }},
		{"port 65536", "last", func(m *pb.Entry) { m.Last = 65536 }},
		{"backward range", "last", func(m *pb.Entry) { m.First = 3 }},
		{"nobody", "prefix", func(m *pb.Entry) { m.Prefix = nil }},
		{"both kinds of peer", "prefix", func(m *pb.Entry) { m.Group = "g" }},
		{"other family's prefix", "prefix", func(m *pb.Entry) { m.Family = 6 }},
		{"unknown field", "", func(m *pb.Entry) { m.ProtoReflect().SetUnknown(unknownField()) }},
	} {
		_, err := decodeEntry(with(entry(), c.spoil))
		wantMalformed(t, c.what, c.path, err)
	}
	var d RulesetDecoder
	if err := d.Add(&pb.RulesetPart{}); err != nil {
		t.Fatal(err)
	}
	_, err := d.Ruleset()
	wantMalformed(t, "no options", "options", err)
	options := encodeOptions(core.Options{})
	if err := d.Add(&pb.RulesetPart{Options: options}); err != nil {
		t.Fatal(err)
	}
	wantMalformed(t, "options twice", "options", d.Add(&pb.RulesetPart{Options: options}))
	nic := encodeNICPolicy(core.NICPolicy{Key: core.NICKey{VM: "a", MAC: core.MAC{2}}})
	wantMalformed(t, "nic twice", "nics[1]", d.Add(&pb.RulesetPart{Nics: []*pb.NICPolicy{nic, nic}}))
	wantMalformed(t, "no egress default", "options.egress_default", new(RulesetDecoder).Add(&pb.RulesetPart{Options: &pb.Options{}}))
	wantMalformed(t, "no part", "part", new(RulesetDecoder).Add(nil))
	wantMalformed(t, "delta from nowhere", "from", new(DeltaDecoder).Add(&pb.DeltaPart{}))
}

func TestMalformedReports(t *testing.T) {
	_, err := DecodeChecks([]*pb.Check{{Name: "x"}})
	wantMalformed(t, "no status", "checks[0].status", err)
	_, err = DecodeInfo(&pb.Info{})
	wantMalformed(t, "no name", "name", err)
	_, err = DecodeInfo(&pb.Info{Name: "x", Settings: []*pb.SettingInfo{{Name: "a", Type: "blob"}}})
	wantMalformed(t, "setting type", "settings[0].type", err)
	_, err = DecodeCounters(&pb.CountersResponse{Counters: []*pb.Counter{{Direction: 1, Reason: "a{label=\"x\"}"}}})
	wantMalformed(t, "reason", "counters[0].reason", err)
	_, err = DecodeFlows("flows", []*pb.Flow{{Src: []byte{1}}})
	wantMalformed(t, "flow", "flows[0].src", err)
	_, err = DecodeEvent(&pb.EventsResponse{Kind: 9})
	wantMalformed(t, "event", "kind", err)
	var o core.Observation
	wantMalformed(t, "fingerprint", "fingerprint", DecodeObservation(&o, &pb.ObserveResponse{Fingerprint: []byte{1}}))
}

func unknownField() []byte {
	return protowire.AppendVarint(protowire.AppendTag(nil, 999, protowire.VarintType), 1)
}

func TestCutAndEndlessStreams(t *testing.T) {
	cut := func() (*pb.CountersResponse, error) { return nil, io.EOF }
	wantMalformed(t, "cut", "", Receive(cut, func(*pb.CountersResponse) error { return nil }))
	chunk := &pb.CountersResponse{}
	for range 5000 {
		chunk.Counters = append(chunk.Counters, &pb.Counter{Device: strings.Repeat("v", 200)})
	}
	n := 0
	endless := func() (*pb.CountersResponse, error) { n++; return chunk, nil }
	wantMalformed(t, "endless", "", Receive(endless, func(*pb.CountersResponse) error { return nil }))
	if n*proto.Size(chunk) > 2*maxStream {
		t.Errorf("%d messages were read", n)
	}
	extra := &pb.CountersResponse{Last: true}
	extra.ProtoReflect().SetUnknown(unknownField())
	wantMalformed(t, "unknown field", "", Receive(func() (*pb.CountersResponse, error) { return extra, nil }, func(*pb.CountersResponse) error { return nil }))
}

// Nothing that a peer sends panics a decoder.
func FuzzDecode(f *testing.F) {
	r := keyed(filled[core.Ruleset]())
	EncodeRuleset(r, func(p *pb.RulesetPart, last bool) error {
		b, _ := proto.Marshal(p)
		f.Add(b)
		return nil
	})
	EncodeDelta(filled[core.Delta](), func(p *pb.DeltaPart, last bool) error {
		b, _ := proto.Marshal(p)
		f.Add(b)
		return nil
	})
	EncodeInstances(filled[[]core.Instance](), func(p *pb.ListResponse) error {
		b, _ := proto.Marshal(p)
		f.Add(b)
		return nil
	})
	f.Fuzz(func(t *testing.T, b []byte) {
		var part pb.RulesetPart
		if proto.Unmarshal(b, &part) == nil {
			var d RulesetDecoder
			if d.Add(&part) == nil {
				if r, err := d.Ruleset(); err == nil {
					if got, _ := throughRuleset(t, r); got.Fingerprint() != r.Fingerprint() {
						t.Error("what was taken does not survive another trip")
					}
				}
			}
		}
		var delta pb.DeltaPart
		if proto.Unmarshal(b, &delta) == nil {
			new(DeltaDecoder).Add(&delta)
		}
		var list pb.ListResponse
		if proto.Unmarshal(b, &list) == nil {
			new(InstanceDecoder).Add(&list)
		}
		var e pb.Error
		if proto.Unmarshal(b, &e) == nil {
			nodes := maxNodes
			_ = decodeNode(&e, maxDepth, &nodes).Error()
		}
	})
}
