package ipset

import (
	"fmt"
	"net/netip"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/drivers/internal/kernel/nl"
)

// Commands and attributes of <linux/netfilter/ipset/ip_set.h>.
const (
	cmdCreate  = unix.NFNL_SUBSYS_IPSET<<8 | 2
	cmdDestroy = unix.NFNL_SUBSYS_IPSET<<8 | 3
	cmdFlush   = unix.NFNL_SUBSYS_IPSET<<8 | 4
	cmdList    = unix.NFNL_SUBSYS_IPSET<<8 | 7
	cmdAdd     = unix.NFNL_SUBSYS_IPSET<<8 | 9
	cmdDel     = unix.NFNL_SUBSYS_IPSET<<8 | 10

	attrProtocol = 1
	attrSetName  = 2
	attrTypeName = 3
	attrRevision = 4
	attrFamily   = 5
	attrData     = 7
	attrADT      = 8
	attrLineNo   = 9

	// Inside attrData.
	attrIP        = 1
	attrCIDR      = 3
	attrCADTFlags = 8
	attrMaxElem   = 19
	attrComment   = 26

	attrIPv4 = 1
	attrIPv6 = 2

	flagWithComment = 1 << 4

	protocol = 6

	// hash:ip and hash:net know no comments before these revisions.
	revisionHashIP, revisionHashNet = 2, 4
)

func request(name string) nl.Buffer {
	b := nl.Buffer{unix.AF_INET, unix.NFNETLINK_V0, 0, 0}
	b.Attr(attrProtocol, protocol)
	if name != "" {
		b.Text(attrSetName, name)
	}
	return b
}

func createRequest(name string, s *Set) nl.Request {
	b := request(name)
	b.Text(attrTypeName, string(s.Type))
	revision := byte(revisionHashIP)
	if s.Type == HashNet {
		revision = revisionHashNet
	}
	b.Attr(attrRevision, revision)
	family := byte(unix.AF_INET)
	if s.Family == core.IPv6 {
		family = unix.AF_INET6
	}
	b.Attr(attrFamily, family)
	end := b.Nest(attrData)
	b.BigUint32(attrMaxElem|unix.NLA_F_NET_BYTEORDER, MaxElements)
	if s.Comment != "" {
		b.BigUint32(attrCADTFlags|unix.NLA_F_NET_BYTEORDER, flagWithComment)
	}
	end()
	return nl.Request{Type: cmdCreate, Flags: unix.NLM_F_CREATE | unix.NLM_F_EXCL, Body: b}
}

func elementRequest(cmd uint16, set string, p netip.Prefix, comment string) nl.Request {
	b := request(set)
	end := b.Nest(attrData)
	endIP := b.Nest(attrIP)
	attr := uint16(attrIPv4)
	if p.Addr().Is6() {
		attr = attrIPv6
	}
	b.Attr(attr|unix.NLA_F_NET_BYTEORDER, p.Addr().AsSlice()...)
	endIP()
	if p.Bits() < p.Addr().BitLen() {
		b.Attr(attrCIDR, byte(p.Bits()))
	}
	if comment != "" {
		b.Text(attrComment, comment)
	}
	b.BigUint32(attrLineNo|unix.NLA_F_NET_BYTEORDER, 0)
	end()
	b.BigUint32(attrLineNo|unix.NLA_F_NET_BYTEORDER, 0)
	return nl.Request{Type: cmd, Body: b}
}

// part is one message of a dump: a set, or more elements of it.
type part struct {
	name, typ string
	family    byte
	members   []netip.Prefix
	comment   string
}

func parse(m nl.Message) (part, bool) {
	if m.Type != cmdList && m.Type != cmdAdd && m.Type != cmdCreate {
		return part{}, false
	}
	var p part
	for t, v := range nl.Attrs(m.Body(4)) {
		switch t {
		case attrSetName:
			p.name = v.String()
		case attrTypeName:
			p.typ = v.String()
		case attrFamily:
			p.family = v.Uint8()
		case attrADT:
			for t, v := range nl.Attrs(v) {
				if t == attrData {
					p.element(v)
				}
			}
		}
	}
	return p, p.name != ""
}

func (p *part) element(v nl.Value) {
	var addr netip.Addr
	bits := -1
	for t, v := range nl.Attrs(v) {
		switch t {
		case attrIP:
			for _, a := range nl.Attrs(v) {
				addr, _ = netip.AddrFromSlice(a)
			}
		case attrCIDR:
			bits = int(v.Uint8())
		case attrComment:
			p.comment = v.String()
		}
	}
	if !addr.IsValid() {
		return
	}
	if bits < 0 {
		bits = addr.BitLen()
	}
	p.members = append(p.members, netip.PrefixFrom(addr, bits))
}

// errBusy: something names the set.
const errBusy syscall.Errno = 4100

// codes are the errors of ip_set.h, above the system's own.
var codes = map[syscall.Errno]string{
	4097:    "the kernel speaks another ipset protocol",
	4098:    "the kernel has no such set type (modprobe ip_set_hash_ip ip_set_hash_net)",
	4099:    "there are as many sets as the kernel allows (max_sets of the module ip_set)",
	errBusy: "a rule still names the set",
	4101:    "a set of that name is there",
	4102:    "the sets are of different types",
	4103:    "the element is there already, or is not there",
	4104:    "not a prefix length",
	4352:    "the set is full",
}

func explained(err error) error {
	for code, text := range codes {
		if isErrno(err, code) {
			return fmt.Errorf("%s: %w", text, err)
		}
	}
	return err
}
