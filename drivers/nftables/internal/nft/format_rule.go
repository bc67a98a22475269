package nft

import (
	"encoding/binary"
	"fmt"
	"strings"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// formatRule prints a rule in nft's words. Expressions speak of registers; the
// printer follows what each register holds.
func (t *Table) formatRule(r Rule) string {
	p := printer{table: t, registers: map[uint32]operand{}}
	for _, e := range r.Exprs {
		p.expr(e)
	}
	if r.Comment != "" {
		p.printf("comment %q", r.Comment)
	}
	return strings.Join(p.words, " ")
}

type printer struct {
	table     *Table
	registers map[uint32]operand
	words     []string
}

// operand is what a register holds: something of the packet, or data of a type
// that its user knows.
type operand struct {
	text string
	typ  DataType
	data string
	// computed operands need an operator where others leave it out.
	computed bool
}

// as prints an operand for a place that takes a type.
func (o operand) as(t DataType) string {
	if o.text == "" {
		return formatValue(t, o.data)
	}
	return o.text
}

func (p *printer) printf(format string, args ...any) {
	p.words = append(p.words, fmt.Sprintf(format, args...))
}

func (p *printer) load(reg uint32, o operand) { p.registers[register32(reg)] = o }

func (p *printer) at(reg uint32) operand {
	if o, ok := p.registers[register32(reg)]; ok {
		return o
	}
	return operand{text: fmt.Sprintf("reg %d", reg)}
}

func (p *printer) expr(e expr.Any) {
	switch e := e.(type) {
	case *expr.Meta:
		p.source(metaOperand(e.Key), e.SourceRegister, e.Register)
	case *expr.Ct:
		p.source(ctOperand(e.Key), e.SourceRegister, e.Register)
	case *expr.Payload:
		o := payloadOperand(e.Base, e.Offset, e.Len)
		if e.OperationType == expr.PayloadWrite {
			p.printf("%s set %s", o.text, p.at(e.SourceRegister).as(o.typ))
			return
		}
		p.load(e.DestRegister, o)
	case *expr.Exthdr:
		p.load(e.DestRegister, exthdrOperand(e))
	case *expr.Fib:
		p.load(e.Register, operand{text: "fib", typ: TypeInteger32})
	case *expr.Bitwise:
		p.load(e.DestRegister, bitwiseOperand(p.at(e.SourceRegister), e))
	case *expr.Byteorder:
		p.load(e.DestRegister, p.at(e.SourceRegister))
	case *expr.Immediate:
		p.load(e.Register, operand{data: string(e.Data)})
	case *expr.Cmp:
		p.compare(p.at(e.Register), e)
	case *expr.Range:
		o := p.at(e.Register)
		p.printf("%s%s %s", o.text, operator(e.Op, o), formatRange(o.typ, string(e.FromData), string(e.ToData)))
	case *expr.Lookup:
		p.lookup(e)
	case *expr.Dynset:
		p.dynset(e)
	default:
		p.statement(e)
	}
}

const opDynsetDelete = 2 // NFT_DYNSET_OP_DELETE, not in golang.org/x/sys/unix v0.50.0

// source is an expression that loads a register, or sets something from one.
func (p *printer) source(o operand, isSet bool, reg uint32) {
	if isSet {
		name := o.text
		if !strings.Contains(name, " ") {
			name = "meta " + name
		}
		p.printf("%s set %s", name, p.at(reg).as(o.typ))
		return
	}
	p.load(reg, o)
}

func (p *printer) compare(o operand, e *expr.Cmp) {
	if o.typ.Name == "exists" && len(e.Data) == 1 {
		word := "exists"
		if (e.Data[0] == 0) == (e.Op == expr.CmpOpEq) {
			word = "missing"
		}
		p.printf("%s %s", o.text, word)
		return
	}
	p.printf("%s%s %s", o.text, operator(e.Op, o), formatValue(o.typ, string(e.Data)))
}

func operator(op expr.CmpOp, o operand) string {
	switch op {
	case expr.CmpOpEq:
		if o.computed {
			return " =="
		}
		return ""
	case expr.CmpOpNeq:
		return " !="
	case expr.CmpOpLt:
		return " <"
	case expr.CmpOpLte:
		return " <="
	case expr.CmpOpGt:
		return " >"
	case expr.CmpOpGte:
		return " >="
	}
	return fmt.Sprintf(" op%d", op)
}

// key is what a set is asked for: as many registers as its key has fields.
func (p *printer) key(set string, reg uint32) string {
	s := p.table.Sets[set]
	if s == nil {
		return p.at(reg).text
	}
	var fields []string
	at := register32(reg)
	for _, t := range s.Key {
		fields = append(fields, p.at(at).as(t))
		at += uint32(padded(t.Size) / 4)
	}
	return strings.Join(fields, " . ")
}

func (p *printer) lookup(e *expr.Lookup) {
	key := p.key(e.SetName, e.SourceRegister)
	switch {
	case !e.IsDestRegSet && e.Invert:
		p.printf("%s != @%s", key, e.SetName)
	case !e.IsDestRegSet:
		p.printf("%s @%s", key, e.SetName)
	case e.DestRegister == unix.NFT_REG_VERDICT:
		p.printf("%s vmap @%s", key, e.SetName)
	default:
		o := operand{text: fmt.Sprintf("%s map @%s", key, e.SetName)}
		if s := p.table.Sets[e.SetName]; s != nil {
			o.typ = s.Data
		}
		p.load(e.DestRegister, o)
	}
}

func (p *printer) dynset(e *expr.Dynset) {
	op := map[uint32]string{
		unix.NFT_DYNSET_OP_ADD: "add", unix.NFT_DYNSET_OP_UPDATE: "update", opDynsetDelete: "delete",
	}[e.Operation]
	p.printf("%s @%s { %s }", op, e.SetName, p.key(e.SetName, e.SrcRegKey))
}

func (p *printer) statement(e expr.Any) {
	switch e := e.(type) {
	case *expr.Verdict:
		p.printf("%s", formatVerdict(Verdict{e.Kind, e.Chain}))
	case *expr.Counter:
		p.printf("counter")
	case *expr.Objref:
		p.printf("%s name %q", objectKind(Object{Type: uint32(e.Type)}), e.Name)
	case *expr.Notrack:
		p.printf("notrack")
	case *expr.Reject:
		p.printf("reject type %d code %d", e.Type, e.Code)
	case *expr.Limit:
		over := ""
		if e.Over {
			over = "over "
		}
		unit := map[expr.LimitTime]string{
			expr.LimitTimeSecond: "second", expr.LimitTimeMinute: "minute", expr.LimitTimeHour: "hour",
			expr.LimitTimeDay: "day", expr.LimitTimeWeek: "week",
		}[e.Unit]
		p.printf("limit rate %s%d/%s burst %d", over, e.Rate, unit, e.Burst)
	case *expr.Log:
		text := "log"
		if len(e.Data) > 0 {
			text += fmt.Sprintf(" prefix %q", strings.TrimRight(string(e.Data), "\x00"))
		}
		if e.Key&(1<<unix.NFTA_LOG_GROUP) != 0 {
			text += fmt.Sprintf(" group %d", e.Group)
		}
		p.printf("%s", text)
	case *Unknown:
		if x, ok := AsExtension(e); ok {
			p.printf("%s", x)
		} else {
			p.printf("%s 0x%x", e.Name, e.Attrs)
		}
	default:
		p.printf("%s", strings.TrimPrefix(fmt.Sprintf("%T", e), "*expr."))
	}
}

func metaOperand(k expr.MetaKey) operand {
	switch k {
	case expr.MetaKeyIIFNAME:
		return operand{text: "iifname", typ: TypeIfName}
	case expr.MetaKeyOIFNAME:
		return operand{text: "oifname", typ: TypeIfName}
	case expr.MetaKeyBRIIIFNAME:
		return operand{text: "meta ibrname", typ: TypeIfName}
	case expr.MetaKeyBRIOIFNAME:
		return operand{text: "meta obrname", typ: TypeIfName}
	case expr.MetaKeyMARK:
		return operand{text: "meta mark", typ: TypeMark}
	case expr.MetaKeyPROTOCOL:
		return operand{text: "meta protocol", typ: TypeEtherType}
	case expr.MetaKeyL4PROTO:
		return operand{text: "meta l4proto", typ: TypeProto}
	case expr.MetaKeyNFPROTO:
		return operand{text: "meta nfproto", typ: TypeNFProto}
	case expr.MetaKeyPKTTYPE:
		return operand{text: "meta pkttype", typ: TypePktType}
	case expr.MetaKeyNFTRACE:
		return operand{text: "meta nftrace", typ: DataType{Native: true}}
	}
	return operand{text: fmt.Sprintf("meta key%d", k), typ: DataType{Native: true}}
}

func ctOperand(k expr.CtKey) operand {
	switch k {
	case expr.CtKeySTATE:
		return operand{text: "ct state", typ: TypeCTState}
	case expr.CtKeyMARK:
		return operand{text: "ct mark", typ: TypeMark}
	case expr.CtKeyZONE:
		return operand{text: "ct zone", typ: TypeZone}
	case expr.CtKeyLABELS:
		return operand{text: "ct label", typ: TypeCTLabel}
	case expr.CtKeySTATUS:
		return operand{text: "ct status", typ: TypeMark}
	case expr.CtKeyDIRECTION:
		return operand{text: "ct direction", typ: TypeInteger8}
	}
	return operand{text: fmt.Sprintf("ct key%d", k), typ: DataType{Native: true}}
}

type place struct {
	base        expr.PayloadBase
	offset, len uint32
}

// The network header's fields are named by place alone: none of those here lie
// at the same place with the same length in another protocol.
var payloadNames = map[place]operand{
	{expr.PayloadBaseLLHeader, 0, 6}:        {text: "ether daddr", typ: TypeEtherAddr},
	{expr.PayloadBaseLLHeader, 6, 6}:        {text: "ether saddr", typ: TypeEtherAddr},
	{expr.PayloadBaseLLHeader, 12, 2}:       {text: "ether type", typ: TypeEtherType},
	{expr.PayloadBaseNetworkHeader, 9, 1}:   {text: "ip protocol", typ: TypeProto},
	{expr.PayloadBaseNetworkHeader, 12, 4}:  {text: "ip saddr", typ: TypeIPv4},
	{expr.PayloadBaseNetworkHeader, 16, 4}:  {text: "ip daddr", typ: TypeIPv4},
	{expr.PayloadBaseNetworkHeader, 8, 16}:  {text: "ip6 saddr", typ: TypeIPv6},
	{expr.PayloadBaseNetworkHeader, 24, 16}: {text: "ip6 daddr", typ: TypeIPv6},
	{expr.PayloadBaseNetworkHeader, 8, 6}:   {text: "arp saddr ether", typ: TypeEtherAddr},
	{expr.PayloadBaseNetworkHeader, 14, 4}:  {text: "arp saddr ip", typ: TypeIPv4},
	{expr.PayloadBaseNetworkHeader, 18, 6}:  {text: "arp daddr ether", typ: TypeEtherAddr},
	{expr.PayloadBaseNetworkHeader, 24, 4}:  {text: "arp daddr ip", typ: TypeIPv4},
	{expr.PayloadBaseTransportHeader, 0, 2}: {text: "th sport", typ: TypePort},
	{expr.PayloadBaseTransportHeader, 2, 2}: {text: "th dport", typ: TypePort},
}

func payloadOperand(base expr.PayloadBase, offset, n uint32) operand {
	if o, ok := payloadNames[place{base, offset, n}]; ok {
		return o
	}
	names := map[expr.PayloadBase]string{
		expr.PayloadBaseLLHeader: "ll", expr.PayloadBaseNetworkHeader: "nh", expr.PayloadBaseTransportHeader: "th",
	}
	return operand{text: fmt.Sprintf("@%s,%d,%d", names[base], offset*8, n*8)}
}

func exthdrOperand(e *expr.Exthdr) operand {
	names := map[uint8]string{0: "hbh", 43: "rt", 44: "frag", 60: "dst", 135: "mh"}
	name := names[e.Type]
	if name == "" {
		name = fmt.Sprint(e.Type)
	}
	if e.Flags&unix.NFT_EXTHDR_F_PRESENT != 0 {
		return operand{text: "exthdr " + name, typ: DataType{Name: "exists"}}
	}
	return operand{text: fmt.Sprintf("exthdr %s,%d,%d", name, e.Offset*8, e.Len*8)}
}

// bitwiseOperand is (value & mask) ^ xor, which sets bits where the mask has
// cleared them.
func bitwiseOperand(o operand, e *expr.Bitwise) operand {
	text := fmt.Sprintf("%s & %s", o.text, formatBits(o.typ, e.Mask))
	if number(e.Xor) != 0 {
		sign := "|"
		for i := range min(len(e.Mask), len(e.Xor)) {
			if e.Mask[i]&e.Xor[i] != 0 {
				sign = "^"
			}
		}
		text += fmt.Sprintf(" %s %s", sign, formatBits(o.typ, e.Xor))
	}
	return operand{text: text, typ: o.typ, computed: true}
}

func formatBits(t DataType, b []byte) string {
	if t.Native && len(b) == 4 {
		if t.ID == TypeCTState.ID {
			return formatValue(t, string(b))
		}
		return fmt.Sprintf("0x%08x", binary.NativeEndian.Uint32(b))
	}
	return fmt.Sprintf("0x%x", b)
}
