package wire

import (
	"fmt"
	"io"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"google.golang.org/protobuf/proto"

	"github.com/ringwall/ringwall/core"
	pb "github.com/ringwall/ringwall/core/plugin/proto"
)

var compare = cmp.Options{
	cmp.Comparer(func(a, b netip.Addr) bool { return a == b }),
	cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }),
	cmpopts.EquateEmpty(),
}

// fill sets every field that can be reached to a valid value that is not
// zero, so that a field of core which a message lacks shows as a difference.
func fill(v reflect.Value, n *int) {
	*n++
	switch x := v.Addr().Interface().(type) {
	case *netip.Addr:
		*x = netip.AddrFrom4([4]byte{10, 0, byte(*n >> 8), byte(*n)})
		return
	case *netip.Prefix:
		*x = netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(*n), 0, 0}), 16)
		return
	case *core.MAC:
		*x = core.MAC{2, 0, 0, 0, byte(*n >> 8), byte(*n)}
		return
	case *core.Family:
		*x = core.IPv4
		return
	case *core.Protocol:
		*x = core.ProtocolTCP
		return
	case *core.Span:
		*x = core.Span{First: uint16(*n), Last: uint16(*n + 1)}
		return
	case *core.Peer:
		fill(reflect.ValueOf(&x.Prefix).Elem(), n) // a group would exclude it
		return
	case *core.Pattern:
		*x = core.Pattern(fmt.Sprintf("br%d*", *n))
		return
	case *core.Fingerprint:
		*x = core.Fingerprint{0: byte(*n), 31: 7}
		return
	case *core.SettingInfo:
		*x = core.SettingInfo{Name: "uri", Type: "string", Default: "a", Choices: []string{"a", "b"}, Required: true, Help: "where"}
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			fill(v.Field(i), n)
		}
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		fill(v.Index(0), n)
		fill(v.Index(1), n)
	case reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
		for range 2 {
			key, value := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
			fill(key, n)
			fill(value, n)
			v.SetMapIndex(key, value)
		}
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem(), n)
	case reflect.String:
		v.SetString(fmt.Sprintf("name-%d", *n))
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		v.SetUint(1) // of an enumeration: the first that is not zero
	default:
		panic("fill does not know " + v.Type().String())
	}
}

func filled[T any]() (out T) {
	n := 0
	fill(reflect.ValueOf(&out).Elem(), &n)
	return out
}

// overWire encodes and decodes a message, as gRPC does.
func overWire[M proto.Message](t testing.TB, m M) M {
	t.Helper()
	b, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := any(m).(interface{ GetLast() bool }); ok && len(b) > MaxMessage {
		t.Fatalf("a message of %d bytes", len(b))
	}
	out := m.ProtoReflect().New().Interface().(M)
	if err := proto.Unmarshal(b, out); err != nil {
		t.Fatal(err)
	}
	return out
}

// stream keeps messages until they are received.
type stream[M proto.Message] struct {
	t    testing.TB
	msgs []M
}

func (s *stream[M]) send(m M) error {
	s.msgs = append(s.msgs, overWire(s.t, m))
	return nil
}

func (s *stream[M]) recv() (m M, err error) {
	if len(s.msgs) == 0 {
		return m, io.EOF
	}
	m, s.msgs = s.msgs[0], s.msgs[1:]
	return m, nil
}

func throughRuleset(t testing.TB, r core.Ruleset) (core.Ruleset, int) {
	t.Helper()
	s := &stream[*pb.SyncRequest]{t: t}
	if err := EncodeRuleset(r, func(p *pb.RulesetPart, last bool) error { return s.send(&pb.SyncRequest{Part: p, Last: last}) }); err != nil {
		t.Fatal(err)
	}
	parts := len(s.msgs)
	var d RulesetDecoder
	if err := Receive(s.recv, func(m *pb.SyncRequest) error { return d.Add(m.GetPart()) }); err != nil {
		t.Fatal(err)
	}
	out, err := d.Ruleset()
	if err != nil {
		t.Fatal(err)
	}
	return out, parts
}

func throughDelta(t testing.TB, in core.Delta) (core.Delta, int) {
	t.Helper()
	s := &stream[*pb.ApplyRequest]{t: t}
	if err := EncodeDelta(in, func(p *pb.DeltaPart, last bool) error { return s.send(&pb.ApplyRequest{Part: p, Last: last}) }); err != nil {
		t.Fatal(err)
	}
	parts := len(s.msgs)
	var d DeltaDecoder
	if err := Receive(s.recv, func(m *pb.ApplyRequest) error { return d.Add(m.GetPart()) }); err != nil {
		t.Fatal(err)
	}
	return d.Delta(), parts
}

// keyed makes the map's keys those of the policies, as in every Ruleset.
func keyed(r core.Ruleset) core.Ruleset {
	for k, n := range r.NICs {
		n.Key = k
		r.NICs[k] = n
	}
	return r
}

func TestEveryFieldCrosses(t *testing.T) {
	same := func(name string, want, got any) {
		t.Helper()
		if d := cmp.Diff(want, got, compare); d != "" {
			t.Errorf("%s (-sent +received):\n%s", name, d)
		}
	}
	ruleset := keyed(filled[core.Ruleset]())
	gotRuleset, _ := throughRuleset(t, ruleset)
	same("ruleset", ruleset, gotRuleset)
	if ruleset.Fingerprint() != gotRuleset.Fingerprint() {
		t.Error("the fingerprint changed on the way")
	}
	delta := filled[core.Delta]()
	gotDelta, _ := throughDelta(t, delta)
	same("delta", delta, gotDelta)

	info := filled[core.Info]()
	gotInfo, err := DecodeInfo(overWire(t, EncodeInfo(info)))
	same("info", info, gotInfo)
	checks := filled[[]core.Check]()
	gotChecks, err2 := DecodeChecks(overWire(t, &pb.PreflightResponse{Checks: EncodeChecks(checks)}).Checks)
	same("checks", checks, gotChecks)
	event := filled[core.Event]()
	gotEvent, err3 := DecodeEvent(overWire(t, EncodeEvent(event)))
	same("event", event, gotEvent)
	vmEvent := filled[core.VMEvent]()
	vmEvent.Kind = core.VMChanged
	gotVMEvent, err4 := DecodeVMEvent(overWire(t, EncodeVMEvent(vmEvent)))
	same("vm event", vmEvent, gotVMEvent)
	for _, err := range []error{err, err2, err3, err4} {
		if err != nil {
			t.Error(err)
		}
	}

	observation := filled[core.Observation]()
	observations := &stream[*pb.ObserveResponse]{t: t}
	var gotObservation core.Observation
	through(t, observations, EncodeObservation(observation, observations.send), func(m *pb.ObserveResponse) error { return DecodeObservation(&gotObservation, m) })
	same("observation", observation, gotObservation)

	wantCounters := filled[[]core.Counter]()
	counters := &stream[*pb.CountersResponse]{t: t}
	var gotCounters []core.Counter
	through(t, counters, EncodeCounters(wantCounters, counters.send), func(m *pb.CountersResponse) error {
		more, err := DecodeCounters(m)
		gotCounters = append(gotCounters, more...)
		return err
	})
	same("counters", wantCounters, gotCounters)

	wantFlows := filled[[]core.Flow]()
	flows := &stream[*pb.FlowsResponse]{t: t}
	var gotFlows []core.Flow
	through(t, flows, EncodeFlows(wantFlows, flows.send), func(m *pb.FlowsResponse) error {
		more, err := DecodeFlows("flows", m.Flows)
		gotFlows = append(gotFlows, more...)
		return err
	})
	same("flows", wantFlows, gotFlows)

	instances := filled[[]core.Instance]()
	lists := &stream[*pb.ListResponse]{t: t}
	var list InstanceDecoder
	through(t, lists, EncodeInstances(instances, lists.send), list.Add)
	same("instances", instances, list.Instances())
}

func through[M interface {
	proto.Message
	GetLast() bool
}](t *testing.T, s *stream[M], encodeErr error, take func(M) error) {
	t.Helper()
	if encodeErr != nil {
		t.Fatal(encodeErr)
	}
	if err := Receive(s.recv, take); err != nil {
		t.Fatal(err)
	}
}

// Values of which fill makes only one.
func TestEveryValueCrosses(t *testing.T) {
	entries := []core.Entry{
		{Direction: core.Ingress, Family: core.IPv4, Protocol: core.AnyProtocol, Span: core.AnySpan, Peer: core.Peer{Prefix: netip.MustParsePrefix("0.0.0.0/0")}},
		{Direction: core.Egress, Family: core.IPv6, Protocol: core.ProtocolICMPv6, Span: core.Span{First: 128 << 8, Last: 128<<8 | 255}, Peer: core.Peer{Prefix: netip.MustParsePrefix("::/0")}},
		{Direction: core.Egress, Family: core.IPv6, Protocol: 255, Span: core.AnySpan, Peer: core.Peer{Group: "bastion"}},
		{Direction: core.Ingress, Family: core.IPv4, Protocol: core.ProtocolUDP, Span: core.Span{}, Peer: core.Peer{Prefix: netip.MustParsePrefix("255.255.255.255/32")}},
	}
	for _, want := range entries {
		got, err := decodeEntry(overWire(t, encodeEntry(want)))
		if err != nil || got != want {
			t.Errorf("sent %v, received %v, %v", want, got, err)
		}
	}
	policies := []core.NICPolicy{
		{Key: core.NICKey{VM: "a", MAC: core.MAC{2}}, Kind: core.SystemVM},
		{Key: core.NICKey{VM: "a", MAC: core.MAC{2}}, EgressDeny4: true},
		{Key: core.NICKey{VM: "a", MAC: core.MAC{2}}, EgressDeny6: true, Pairs: []core.AddressPair{{Prefix: netip.MustParsePrefix("fd00::/8")}}},
	}
	for _, want := range policies {
		got, err := decodeNICPolicy(overWire(t, encodeNICPolicy(want)))
		if err != nil || !got.Equal(want) {
			t.Errorf("sent %v, received %v, %v", want, got, err)
		}
	}
	for _, want := range []core.Options{{}, {EgressDefault: core.EgressExplicit}, {Multicast: core.MulticastDrop}, {AllowDNS: true}, {CountOnly: true}} {
		got, err := decodeOptions(overWire(t, encodeOptions(want)))
		if err != nil || !got.Equal(want) {
			t.Errorf("sent %+v, received %+v, %v", want, got, err)
		}
	}
	for _, kind := range []core.VMEventKind{core.VMResync, core.VMStarted, core.VMStopped, core.VMChanged} {
		want := core.VMEvent{Kind: kind}
		if kind != core.VMResync {
			want.Instance = core.Instance{VM: core.VM{Key: "k", Name: "n"}}
		}
		got, err := DecodeVMEvent(overWire(t, EncodeVMEvent(want)))
		if d := cmp.Diff(want, got, compare); err != nil || d != "" {
			t.Errorf("%v: %v\n%s", kind, err, d)
		}
	}
}

func TestLargeParts(t *testing.T) {
	r := core.Ruleset{Groups: map[string]core.GroupPolicy{}, Sets: map[string]core.AddressSet{}, NICs: map[core.NICKey]core.NICPolicy{}}
	var entries []core.Entry
	var members []netip.Addr
	for i := range 30_000 {
		a := netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})
		entries = append(entries, core.Entry{Direction: core.Ingress, Family: core.IPv4, Protocol: core.ProtocolTCP, Span: core.Span{First: 22, Last: 22}, Peer: core.Peer{Prefix: netip.PrefixFrom(a, 32)}})
		members = append(members, a)
	}
	for _, g := range []string{"a", "b", "empty"} {
		r.Groups[g], r.Sets[g] = core.GroupPolicy{Entries: entries}, core.AddressSet{Members: members}
	}
	r.Groups["empty"], r.Sets["empty"] = core.GroupPolicy{}, core.AddressSet{}
	got, parts := throughRuleset(t, r)
	if parts < 5 {
		t.Errorf("%d parts: nothing was split", parts)
	}
	// cmp is slow with so many.
	for _, g := range []string{"a", "b", "empty"} {
		if !slices.Equal(got.Groups[g].Entries, r.Groups[g].Entries) || !slices.Equal(got.Sets[g].Members, r.Sets[g].Members) {
			t.Errorf("group %s: %d entries and %d members came", g, len(got.Groups[g].Entries), len(got.Sets[g].Members))
		}
	}
	if len(got.Groups) != 3 || len(got.Sets) != 3 {
		t.Errorf("%d groups and %d sets came", len(got.Groups), len(got.Sets))
	}

	delta := core.Delta{
		From: core.Fingerprint{1}, To: core.Fingerprint{2},
		Groups: map[string]core.GroupDelta{"a": {Add: entries, Remove: entries}, "gone": {Gone: true}},
		Sets:   map[string]core.SetDelta{"a": {Add: members, Remove: members}, "gone": {Gone: true}},
	}
	gotDelta, parts := throughDelta(t, delta)
	if parts < 5 {
		t.Errorf("%d parts: nothing was split", parts)
	}
	g, s := gotDelta.Groups["a"], gotDelta.Sets["a"]
	if !slices.Equal(g.Add, entries) || !slices.Equal(g.Remove, entries) || !slices.Equal(s.Add, members) || !slices.Equal(s.Remove, members) {
		t.Errorf("+%d -%d entries and +%d -%d members came", len(g.Add), len(g.Remove), len(s.Add), len(s.Remove))
	}
	if g.Gone || s.Gone || !gotDelta.Groups["gone"].Gone || !gotDelta.Sets["gone"].Gone || gotDelta.From != delta.From || gotDelta.To != delta.To {
		t.Errorf("what is gone or the fingerprints changed")
	}
}

func TestTooLargeForOnePart(t *testing.T) {
	k := core.NICKey{VM: "big", MAC: core.MAC{2}}
	n := core.NICPolicy{Key: k}
	for i := range 100_000 {
		n.Addresses = append(n.Addresses, netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}))
	}
	err := EncodeRuleset(core.Ruleset{NICs: map[core.NICKey]core.NICPolicy{k: n}}, func(*pb.RulesetPart, bool) error { return nil })
	var o *core.ObjectError
	if !errorsAs(err, &o) || !slices.Equal(o.NICs, []core.NICKey{k}) || !strings.Contains(err.Error(), "at most") {
		t.Errorf("got %v", err)
	}
}

func TestSettingsKeepTheirTypes(t *testing.T) {
	in := core.Settings{
		"s": "x", "i": 7, "n": -1, "f": 0.5, "b": true, "none": nil, "big": uint64(1 << 63),
		"list": []any{"a", 1, []any{true}}, "map": map[string]any{"k": map[string]any{"x": 2}},
	}
	m, err := EncodeSettings(in)
	if err != nil {
		t.Fatal(err)
	}
	got, err := DecodeSettings(overWire(t, &pb.OpenRequest{Settings: m}).Settings)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(in, got); d != "" {
		t.Error(d)
	}
	_, err = EncodeSettings(core.Settings{"a": []any{1, func() {}}})
	var f *core.FieldError
	if !errorsAs(err, &f) || f.Path != "a[1]" {
		t.Errorf("got %v", err)
	}
}
