package nft

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Tx is a transaction being written: messages in one buffer, ready to be sent.
// Its methods append in the order they are called; the kernel checks every
// message against what the earlier ones left, so references must exist when
// they are made and be gone when their target is deleted. Diff keeps that
// order. The zero value is ready; a Tx is sent once.
type Tx struct {
	buf     buffer // all messages, after room for the batch's beginning
	msgs    []message
	lock    uint32
	locked  bool
	err     error
	nextSet uint32
}

// message remembers what a message was about, for errors. Its sequence number
// is its place in the list.
type message struct {
	offset int // in Tx.buf
	op     string
	table  TableID
	kind   string // "table", "chain", "rule", "set", "element"
	name   string
	rule   int  // place of a rule among those added to its chain
	set    *Set // for elements
}

// batchBegin is the size of NFNL_MSG_BATCH_BEGIN with a generation id.
const batchBegin = nlHeaderLen + nfHeaderLen + attrHeaderLen + 4

const (
	nlHeaderLen = 16
	nfHeaderLen = 4
)

// Lock makes the kernel refuse the transaction with ErrGeneration if nftables
// has another generation by then.
func (tx *Tx) Lock(generation uint32) { tx.lock, tx.locked = generation, true }

// Empty tells whether there is nothing to send.
func (tx *Tx) Empty() bool { return len(tx.msgs) == 0 && tx.err == nil }

// Len is the number of messages, Size that of bytes.
func (tx *Tx) Len() int  { return len(tx.msgs) }
func (tx *Tx) Size() int { return len(tx.buf) }

// Err is the first error met while building; Apply reports it too.
func (tx *Tx) Err() error { return tx.err }

func (tx *Tx) fail(err error) {
	if tx.err == nil {
		tx.err = err
	}
}

// AddTable makes a table, or wakes it up if it was dormant.
func (tx *Tx) AddTable(id TableID) {
	tx.begin(unix.NFT_MSG_NEWTABLE, unix.NLM_F_CREATE, message{op: "add", table: id, kind: "table"})
	tx.buf.str(unix.NFTA_TABLE_NAME, id.Name)
	tx.buf.u32(unix.NFTA_TABLE_FLAGS, 0)
	tx.finish()
}

// DeleteTable deletes a table with all that it holds.
func (tx *Tx) DeleteTable(id TableID) {
	tx.begin(unix.NFT_MSG_DELTABLE, 0, message{op: "delete", table: id, kind: "table"})
	tx.buf.str(unix.NFTA_TABLE_NAME, id.Name)
	tx.finish()
}

// AddChain makes a chain without its rules, or gives a base chain that is
// there its policy.
func (tx *Tx) AddChain(id TableID, c *Chain) {
	tx.begin(unix.NFT_MSG_NEWCHAIN, unix.NLM_F_CREATE, message{op: "add", table: id, kind: "chain", name: c.Name})
	tx.buf.str(unix.NFTA_CHAIN_TABLE, id.Name)
	tx.buf.str(unix.NFTA_CHAIN_NAME, c.Name)
	if c.Base != nil {
		tx.hook(c.Base, c.Base.Devices)
		tx.buf.u32(unix.NFTA_CHAIN_POLICY, uint32(c.Base.Policy))
		tx.buf.str(unix.NFTA_CHAIN_TYPE, string(c.Base.Type))
	}
	tx.finish()
}

// SetPolicy changes the policy of a base chain.
func (tx *Tx) SetPolicy(id TableID, c *Chain) {
	tx.begin(unix.NFT_MSG_NEWCHAIN, 0, message{op: "set policy of", table: id, kind: "chain", name: c.Name})
	tx.buf.str(unix.NFTA_CHAIN_TABLE, id.Name)
	tx.buf.str(unix.NFTA_CHAIN_NAME, c.Name)
	tx.buf.u32(unix.NFTA_CHAIN_POLICY, uint32(c.Base.Policy))
	tx.finish()
}

// AddDevices hooks a netdev base chain to more devices (kernel 6.4).
func (tx *Tx) AddDevices(id TableID, c *Chain, devices []string) {
	tx.devices(unix.NFT_MSG_NEWCHAIN, "add devices to", id, c, devices)
}

// DeleteDevices unhooks a netdev base chain from devices (kernel 6.4).
func (tx *Tx) DeleteDevices(id TableID, c *Chain, devices []string) {
	tx.devices(unix.NFT_MSG_DELCHAIN, "delete devices of", id, c, devices)
}

func (tx *Tx) devices(typ int, op string, id TableID, c *Chain, devices []string) {
	for part := range slices.Chunk(devices, maxDevices) {
		tx.begin(typ, 0, message{op: op, table: id, kind: "chain", name: c.Name})
		tx.buf.str(unix.NFTA_CHAIN_TABLE, id.Name)
		tx.buf.str(unix.NFTA_CHAIN_NAME, c.Name)
		tx.hook(c.Base, part)
		tx.finish()
	}
}

// maxDevices is how many devices the kernel takes in one message
// (NFT_NETDEVICE_MAX).
const maxDevices = 256

func (tx *Tx) hook(base *Base, devices []string) {
	at := tx.buf.nest(unix.NFTA_CHAIN_HOOK)
	tx.buf.u32(unix.NFTA_HOOK_HOOKNUM, uint32(base.Hook))
	tx.buf.u32(unix.NFTA_HOOK_PRIORITY, uint32(base.Priority))
	switch len(devices) {
	case 0:
	case 1: // the only form before kernel 5.5
		tx.buf.str(unix.NFTA_HOOK_DEV, devices[0])
	default:
		in := tx.buf.nest(attrHookDevs)
		for _, dev := range devices {
			tx.buf.str(attrDeviceName, dev)
		}
		tx.buf.end(in)
	}
	tx.buf.end(at)
}

const (
	attrHookDevs   = 4 // NFTA_HOOK_DEVS
	attrDeviceName = 1 // NFTA_DEVICE_NAME
)

// DeleteChain deletes a chain with its rules; nothing may jump to it any more.
func (tx *Tx) DeleteChain(id TableID, name string) {
	tx.begin(unix.NFT_MSG_DELCHAIN, 0, message{op: "delete", table: id, kind: "chain", name: name})
	tx.buf.str(unix.NFTA_CHAIN_TABLE, id.Name)
	tx.buf.str(unix.NFTA_CHAIN_NAME, name)
	tx.finish()
}

// FlushChain deletes all rules of a chain.
func (tx *Tx) FlushChain(id TableID, name string) {
	tx.begin(unix.NFT_MSG_DELRULE, 0, message{op: "flush", table: id, kind: "chain", name: name})
	tx.buf.str(unix.NFTA_RULE_TABLE, id.Name)
	tx.buf.str(unix.NFTA_RULE_CHAIN, name)
	tx.finish()
}

// AppendRules adds rules to the end of a chain.
func (tx *Tx) AppendRules(id TableID, chain string, rules []Rule) {
	for i := range rules {
		tx.appendRule(id, chain, i, &rules[i])
	}
}

// ReplaceRules makes the chain hold exactly these rules: in one transaction no
// packet sees the chain empty. Counters in the rules start again.
func (tx *Tx) ReplaceRules(id TableID, chain string, rules []Rule) {
	tx.FlushChain(id, chain)
	tx.AppendRules(id, chain, rules)
}

func (tx *Tx) appendRule(id TableID, chain string, index int, r *Rule) {
	tx.begin(unix.NFT_MSG_NEWRULE, unix.NLM_F_CREATE|unix.NLM_F_APPEND,
		message{op: "add", table: id, kind: "rule", name: chain, rule: index})
	b := &tx.buf
	b.str(unix.NFTA_RULE_TABLE, id.Name)
	b.str(unix.NFTA_RULE_CHAIN, chain)
	at := b.nest(unix.NFTA_RULE_EXPRESSIONS)
	if err := appendExprs(b, id.Family, r.Exprs); err != nil {
		tx.fail(fmt.Errorf("%s: %w", tx.describe(len(tx.msgs)-1, 0), err))
	}
	if !b.end(at) {
		tx.fail(fmt.Errorf("%s: too long", tx.describe(len(tx.msgs)-1, 0)))
	}
	if r.Comment != "" {
		if len(r.Comment) > maxComment {
			tx.fail(fmt.Errorf("%s: comment of %d bytes, nft reads %d", tx.describe(len(tx.msgs)-1, 0), len(r.Comment), maxComment))
		}
		raw(b, unix.NFTA_RULE_USERDATA, userdataString(udataRuleComment, r.Comment))
	}
	tx.finish()
}

// AddSet makes a set without its elements.
func (tx *Tx) AddSet(id TableID, s *Set) {
	if err := s.validate(); err != nil {
		tx.fail(fmt.Errorf("%s: %w", id, err))
	}
	tx.begin(unix.NFT_MSG_NEWSET, unix.NLM_F_CREATE|unix.NLM_F_EXCL, message{op: "add", table: id, kind: "set", name: s.Name})
	tx.nextSet++
	appendSet(&tx.buf, id, s, tx.nextSet)
	tx.finish()
}

// DeleteSet deletes a set with its elements; no rule may use it any more.
func (tx *Tx) DeleteSet(id TableID, name string) {
	tx.begin(unix.NFT_MSG_DELSET, 0, message{op: "delete", table: id, kind: "set", name: name})
	tx.buf.str(unix.NFTA_SET_TABLE, id.Name)
	tx.buf.str(unix.NFTA_SET_NAME, name)
	tx.finish()
}

// AddElements adds elements to a set. An element that is there with another
// value is refused: delete it first, in the same transaction.
func (tx *Tx) AddElements(id TableID, s *Set, elems map[Key]Value) {
	tx.elements(unix.NFT_MSG_NEWSETELEM, unix.NLM_F_CREATE, "add", id, s, sortedElements(elems))
}

// DeleteElements deletes elements of a set.
func (tx *Tx) DeleteElements(id TableID, s *Set, keys []Key) {
	list := make([]element, len(keys))
	for i, k := range keys {
		list[i] = element{k, Value{}}
	}
	slices.SortFunc(list, element.compare)
	tx.elements(unix.NFT_MSG_DELSETELEM, 0, "delete", id, s, list)
}

// FlushSet deletes all elements of a set, a dynamic one too.
func (tx *Tx) FlushSet(id TableID, s *Set) {
	tx.begin(unix.NFT_MSG_DELSETELEM, 0, message{op: "flush", table: id, kind: "set", name: s.Name})
	tx.buf.str(unix.NFTA_SET_ELEM_LIST_TABLE, id.Name)
	tx.buf.str(unix.NFTA_SET_ELEM_LIST_SET, s.Name)
	tx.finish()
}

type element struct {
	key   Key
	value Value
}

func (e element) compare(o element) int { return compareKeys(e.key, o.key) }

func compareKeys(a, b Key) int {
	return cmp.Or(strings.Compare(a.From, b.From), strings.Compare(a.To, b.To))
}

// sortedElements keeps transactions reproducible, and gives the kernel's
// interval sets their elements in the order they like best.
func sortedElements(m map[Key]Value) []element {
	list := make([]element, 0, len(m))
	for k, v := range m {
		list = append(list, element{k, v})
	}
	slices.SortFunc(list, element.compare)
	return list
}

func (tx *Tx) elements(typ, flags int, op string, id TableID, s *Set, elems []element) {
	b := &tx.buf
	adds := typ == unix.NFT_MSG_NEWSETELEM
	for len(elems) > 0 {
		tx.begin(typ, flags, message{op: op, table: id, kind: "element", name: s.Name, set: s})
		b.str(unix.NFTA_SET_ELEM_LIST_TABLE, id.Name)
		b.str(unix.NFTA_SET_ELEM_LIST_SET, s.Name)
		at := b.nest(unix.NFTA_SET_ELEM_LIST_ELEMENTS)
		for len(elems) > 0 && len(*b)-at < attrMaxLen-maxElementLen {
			e := elems[0]
			elems = elems[1:]
			if err := s.checkKey(e.key); err != nil {
				tx.fail(fmt.Errorf("%s: %w", id, err))
			}
			if adds {
				if err := s.checkValue(e.value); err != nil {
					tx.fail(fmt.Errorf("%s: %w", id, err))
				}
			}
			appendElement(b, s, e, adds)
		}
		b.end(at)
		tx.finish()
	}
}

// begin opens a message; finish sets its length.
func (tx *Tx) begin(typ, flags int, m message) {
	if tx.buf == nil {
		tx.buf = make(buffer, batchBegin, 4096)
	}
	m.offset = len(tx.buf)
	tx.msgs = append(tx.msgs, m)
	appendHeader(&tx.buf, unix.NFNL_SUBSYS_NFTABLES<<8|typ, flags, uint32(len(tx.msgs)), m.table.Family, 0)
}

func (tx *Tx) finish() {
	setLen(tx.buf, tx.msgs[len(tx.msgs)-1].offset)
}

// appendHeader appends nlmsghdr and nfgenmsg.
func appendHeader(b *buffer, typ, flags int, seq uint32, family Family, resource uint16) {
	*b = append(*b, 0, 0, 0, 0) // length, set at the end
	*b = binary.NativeEndian.AppendUint16(*b, uint16(typ))
	*b = binary.NativeEndian.AppendUint16(*b, uint16(unix.NLM_F_REQUEST|flags))
	*b = binary.NativeEndian.AppendUint32(*b, seq)
	*b = append(*b, 0, 0, 0, 0) // port: the kernel's to fill in
	*b = append(*b, byte(family), unix.NFNETLINK_V0)
	*b = binary.BigEndian.AppendUint16(*b, resource)
}

func setLen(b []byte, offset int) {
	binary.NativeEndian.PutUint32(b[offset:], uint32(len(b)-offset))
}

// encode closes the batch and gives its bytes. The messages are numbered from
// base on: the batch's begin is base itself.
func (tx *Tx) encode(base uint32) []byte {
	begin := make(buffer, 0, batchBegin)
	appendHeader(&begin, unix.NFNL_MSG_BATCH_BEGIN, 0, base, 0, unix.NFNL_SUBSYS_NFTABLES)
	if tx.locked {
		begin.u32(unix.NFNL_BATCH_GENID, tx.lock)
	}
	setLen(begin, 0)
	start := batchBegin - len(begin)
	copy(tx.buf[start:], begin)

	for i, m := range tx.msgs {
		binary.NativeEndian.PutUint32(tx.buf[m.offset+8:], base+uint32(i)+1)
	}
	// One acknowledgement, of the last message: all the kernel has to say about
	// the batch comes before it. The end of a batch is not acknowledged before
	// kernel 6.10.
	last := tx.buf[tx.msgs[len(tx.msgs)-1].offset+6:]
	binary.NativeEndian.PutUint16(last, binary.NativeEndian.Uint16(last)|unix.NLM_F_ACK)

	end := len(tx.buf)
	appendHeader(&tx.buf, unix.NFNL_MSG_BATCH_END, 0, base+uint32(len(tx.msgs))+1, 0, unix.NFNL_SUBSYS_NFTABLES)
	setLen(tx.buf, end)
	return tx.buf[start:]
}

// describe names the object of a message. For elements, offset tells where in
// the message the kernel found fault (0 if it did not say).
func (tx *Tx) describe(index, offset int) string {
	m := tx.msgs[index]
	switch m.kind {
	case "table":
		return "table " + m.table.String()
	case "rule":
		return fmt.Sprintf("%s chain %s rule %d", m.table, m.name, m.rule+1)
	case "element":
		if e, ok := tx.elementAt(m, offset); ok {
			return fmt.Sprintf("%s set %s element %s", m.table, m.name, m.set.formatElement(e.key, e.value))
		}
		return fmt.Sprintf("%s set %s elements", m.table, m.name)
	default:
		return fmt.Sprintf("%s %s %s", m.table, m.kind, m.name)
	}
}

// elementAt decodes the element at an offset of a message of elements.
func (tx *Tx) elementAt(m message, offset int) (element, bool) {
	at := m.offset + offset
	if offset <= 0 || at+attrHeaderLen > len(tx.buf) {
		return element{}, false
	}
	for a := range attrs(tx.buf[at:]) {
		if a.typ != unix.NFTA_LIST_ELEM {
			return element{}, false
		}
		e, _ := parseElement(a.data)
		return e.element, true
	}
	return element{}, false
}
