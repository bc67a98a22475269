package nft

import (
	"testing"
	"time"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// Our encoding of an expression means what the library's means.
func TestEncodingAgreesWithLibrary(t *testing.T) {
	var exprs []expr.Any
	for _, table := range sampleState() {
		for _, c := range table.Chains {
			for _, r := range c.Rules {
				exprs = append(exprs, r.Exprs...)
			}
		}
	}
	exprs = append(exprs,
		&expr.Dynset{SrcRegKey: reg1, SrcRegData: unix.NFT_REG_2, SetName: "s", Operation: unix.NFT_DYNSET_OP_UPDATE, Timeout: time.Minute, Invert: true},
		&expr.Lookup{SourceRegister: reg1, SetName: "s", Invert: true},
		&expr.Ct{Key: expr.CtKeyDIRECTION, Register: reg1},
		&expr.Payload{OperationType: expr.PayloadWrite, SourceRegister: reg1, Base: expr.PayloadBaseNetworkHeader, Offset: 8, Len: 1, CsumType: expr.CsumTypeInet, CsumOffset: 10},
		verdict(expr.VerdictGoto, "c"), verdict(expr.VerdictReturn, ""),
		&expr.Fib{Register: reg1, ResultADDRTYPE: true, FlagDADDR: true},
		&expr.Reject{Type: unix.NFT_REJECT_TCP_RST},
	)
	for _, e := range exprs {
		var ours, library buffer
		if err := appendExprs(&ours, Bridge, []expr.Any{e}); err != nil {
			t.Fatal(err)
		}
		enc, err := expr.Marshal(byte(Bridge), e)
		if err != nil {
			t.Fatal(err)
		}
		raw(&library, unix.NFTA_LIST_ELEM, enc)
		if a, b := string(appendNormal(nil, ours)), string(appendNormal(nil, library)); a != b {
			t.Errorf("%T %+v:\nours    %q\nlibrary %q", e, e, a, b)
		}
	}
}

// Two rules that differ in anything that changes a verdict differ.
func TestNormalFormKeepsDifferences(t *testing.T) {
	lookup := expr.Lookup{SourceRegister: reg1, SetName: "s"}
	with := func(f func(*expr.Lookup)) *expr.Lookup { l := lookup; f(&l); return &l }
	different := [][2]expr.Any{
		{meta(expr.MetaKeyIIFNAME, reg1), meta(expr.MetaKeyOIFNAME, reg1)},
		{meta(expr.MetaKeyIIFNAME, reg1), meta(expr.MetaKeyIIFNAME, r0+1)},
		{meta(expr.MetaKeyMARK, reg1), &expr.Meta{Key: expr.MetaKeyMARK, Register: reg1, SourceRegister: true}},
		{&lookup, with(func(l *expr.Lookup) { l.Invert = true })},
		{&lookup, with(func(l *expr.Lookup) { l.SetName = "t" })},
		{&lookup, with(func(l *expr.Lookup) { l.IsDestRegSet = true })},
		{eq(reg1, U8(0)), eq(reg1, U8(1))},
		{eq(reg1, U8(0)), eq(reg1, U16(0))},
		{eq(reg1, IfName("a")), eq(reg1, Raw([]byte("a")))},
		{eq(reg1, U8(0)), &expr.Cmp{Op: expr.CmpOpNeq, Register: reg1, Data: []byte{0}}},
		{verdict(expr.VerdictDrop, ""), verdict(expr.VerdictAccept, "")},
		{verdict(expr.VerdictJump, "a"), verdict(expr.VerdictGoto, "a")},
		{verdict(expr.VerdictJump, "a"), verdict(expr.VerdictJump, "b")},
		{load(expr.PayloadBaseNetworkHeader, 0, 4, reg1), load(expr.PayloadBaseTransportHeader, 0, 4, reg1)},
		{&expr.Limit{Rate: 1, Unit: expr.LimitTimeSecond}, &expr.Limit{Rate: 1, Unit: expr.LimitTimeSecond, Over: true}},
		{&expr.Exthdr{DestRegister: reg1, Type: 44, Len: 1}, &expr.Exthdr{DestRegister: reg1, Type: 44, Len: 1, Flags: unix.NFT_EXTHDR_F_PRESENT}},
		{&expr.Counter{}, &expr.Notrack{}},
		{&Unknown{Name: "x", Attrs: []byte{8, 0, 1, 0, 0, 0, 0, 1}}, &Unknown{Name: "x", Attrs: []byte{8, 0, 1, 0, 0, 0, 0, 2}}},
	}
	for _, pair := range different {
		if sameRule(Bridge, rule(pair[0]), rule(pair[1])) {
			t.Errorf("%+v is taken for %+v", pair[0], pair[1])
		}
	}
	same := [][2]expr.Any{
		{meta(expr.MetaKeyIIFNAME, unix.NFT_REG_2), meta(expr.MetaKeyIIFNAME, r0+4)},
		{&expr.Counter{}, &expr.Counter{Packets: 5, Bytes: 7}},
		{&expr.Lookup{SourceRegister: reg1, SetName: "s", SetID: 3}, &lookup},
	}
	for _, pair := range same {
		if !sameRule(Bridge, rule(pair[0]), rule(pair[1])) {
			t.Errorf("%+v is not taken for %+v", pair[0], pair[1])
		}
	}
	if sameRule(Bridge, rule(&expr.Counter{}, &expr.Notrack{}), rule(&expr.Notrack{}, &expr.Counter{})) {
		t.Error("order of expressions is lost")
	}
	if sameRule(Bridge, Rule{Comment: "a"}, Rule{Comment: "b"}) {
		t.Error("comment is lost")
	}
}

// Whatever bytes come, decoding ends and does not fall over.
func FuzzParse(f *testing.F) {
	tx := Diff(nil, sampleState())
	for i, m := range tx.msgs {
		end := len(tx.buf)
		if i+1 < len(tx.msgs) {
			end = tx.msgs[i+1].offset
		}
		f.Add([]byte(tx.buf[m.offset:end]))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		for rest := b; len(rest) > 0; {
			m, r, err := nextMessage(rest)
			if err != nil {
				break
			}
			rest = r
			_, _ = parseAck(m)
			body := m.body()
			s := parseSet(body)
			_ = s.headline()
			exprs := find(body, unix.NFTA_RULE_EXPRESSIONS)
			table := NewTable(m.family(), "t")
			_ = table.formatRule(Rule{Exprs: parseExprs(m.family(), exprs), read: appendNormal(nil, exprs)})
			for item := range attrs(find(body, unix.NFTA_SET_ELEM_LIST_ELEMENTS)) {
				e, _ := parseElement(item.data)
				_ = s.formatElement(e.key, e.value)
			}
			new(Base).parseHook(find(body, unix.NFTA_CHAIN_HOOK))
			_ = userdata(body, 0)
		}
	})
}
