package state

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"net/netip"
	"strconv"

	"github.com/ringwall/ringwall/core"
)

// Records are what the file holds: a CRC-32C of key and JSON, then JSON with
// the words that users write, so that no renumbering of a Go constant can turn
// one rule into another.

type groupRecord struct {
	Source string       `json:"source"`
	Rules  []ruleRecord `json:"rules,omitempty"`
}

type ruleRecord struct {
	Direction string       `json:"direction"`
	Protocol  string       `json:"protocol"`
	Ports     []string     `json:"ports,omitempty"`
	ICMP      *icmpRecord  `json:"icmp,omitempty"`
	Peers     *peersRecord `json:"peers,omitempty"` // absent: anybody; empty: nobody
}

type icmpRecord struct {
	Type *uint8 `json:"type,omitempty"`
	Code *uint8 `json:"code,omitempty"`
}

type peersRecord struct {
	CIDRs  []netip.Prefix `json:"cidrs,omitempty"`
	Groups []string       `json:"groups,omitempty"`
}

type vmRecord struct {
	Source string      `json:"source"`
	Name   string      `json:"name"`
	Kind   string      `json:"kind"`
	NICs   []nicRecord `json:"nics,omitempty"`
}

type nicRecord struct {
	MAC             core.MAC     `json:"mac"`
	Addresses       []netip.Addr `json:"addresses,omitempty"`
	Pairs           []pairRecord `json:"pairs,omitempty"`
	Groups          []string     `json:"groups,omitempty"`
	SpoofingAllowed bool         `json:"spoofing_allowed,omitempty"`
	Bridge          string       `json:"bridge,omitempty"`
	Devices         []string     `json:"devices,omitempty"`
}

type pairRecord struct {
	Prefix netip.Prefix `json:"prefix"`
	MAC    *core.MAC    `json:"mac,omitempty"`
}

func (g Group) record() groupRecord {
	out := groupRecord{Source: g.Source}
	for _, r := range g.Rules {
		rr := ruleRecord{Direction: r.Direction.String(), Protocol: r.Protocol.String()}
		for _, s := range r.Ports {
			rr.Ports = append(rr.Ports, s.String())
		}
		if r.ICMP != nil {
			rr.ICMP = &icmpRecord{r.ICMP.Type, r.ICMP.Code}
		}
		if r.Peers != nil {
			rr.Peers = &peersRecord{r.Peers.CIDRs, r.Peers.Groups}
		}
		out.Rules = append(out.Rules, rr)
	}
	return out
}

func (r groupRecord) group(name string) (Group, error) {
	g := Group{Group: core.Group{Name: name}, Source: r.Source}
	for i, rr := range r.Rules {
		rule, err := rr.rule()
		if err != nil {
			return g, fmt.Errorf("rule %d: %w", i, err)
		}
		g.Rules = append(g.Rules, rule)
	}
	return g.clone(), nil
}

func (r ruleRecord) rule() (rule core.Rule, err error) {
	if rule.Direction, err = core.ParseDirection(r.Direction); err != nil {
		return rule, err
	}
	if rule.Protocol, err = core.ParseProtocol(r.Protocol); err != nil {
		return rule, err
	}
	for _, p := range r.Ports {
		s, err := core.PortSpan(p)
		if err != nil {
			return rule, err
		}
		rule.Ports = append(rule.Ports, s)
	}
	if r.ICMP != nil {
		rule.ICMP = &core.ICMPMatch{Type: r.ICMP.Type, Code: r.ICMP.Code}
	}
	if r.Peers != nil {
		rule.Peers = &core.Peers{CIDRs: r.Peers.CIDRs, Groups: r.Peers.Groups}
	}
	return rule, nil
}

func (v VM) record() vmRecord {
	out := vmRecord{Source: v.Source, Name: v.Name, Kind: v.Kind.String()}
	for _, n := range v.NICs {
		nr := nicRecord{MAC: n.MAC, Addresses: n.Addresses, Groups: n.Groups, SpoofingAllowed: n.SpoofingAllowed,
			Bridge: n.Binding.Bridge, Devices: n.Binding.Devices}
		for _, p := range n.Pairs {
			pr := pairRecord{Prefix: p.Prefix}
			if p.MAC != (core.MAC{}) {
				pr.MAC = &p.MAC
			}
			nr.Pairs = append(nr.Pairs, pr)
		}
		out.NICs = append(out.NICs, nr)
	}
	return out
}

func (r vmRecord) vm(key core.VMKey) (VM, error) {
	kind, err := core.ParseVMKind(r.Kind)
	if err != nil {
		return VM{}, err
	}
	v := VM{VM: core.VM{Key: key, Name: r.Name, Kind: kind}, Source: r.Source}
	for _, nr := range r.NICs {
		n := core.NIC{MAC: nr.MAC, Addresses: nr.Addresses, Groups: nr.Groups, SpoofingAllowed: nr.SpoofingAllowed,
			Binding: core.Binding{Bridge: nr.Bridge, Devices: nr.Devices}}
		for _, p := range nr.Pairs {
			pair := core.AddressPair{Prefix: p.Prefix}
			if p.MAC != nil {
				pair.MAC = *p.MAC
			}
			n.Pairs = append(n.Pairs, pair)
		}
		v.NICs = append(v.NICs, n)
	}
	return v.clone(), nil
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

var errChecksum = errors.New("checksum does not match")

func checksum(key, body []byte) uint32 {
	return crc32.Update(crc32.Checksum(key, castagnoli), castagnoli, body)
}

// seal puts the checksum before a record's body.
func seal(key string, body []byte) []byte {
	return append(binary.BigEndian.AppendUint32(nil, checksum([]byte(key), body)), body...)
}

// unseal gives the body of a record whose checksum is right.
func unseal(key, record []byte) ([]byte, error) {
	if len(record) < 4 || binary.BigEndian.Uint32(record) != checksum(key, record[4:]) {
		return nil, fmt.Errorf("record %s: %w", strconv.Quote(string(key)), errChecksum)
	}
	return record[4:], nil
}

func marshal(key string, v any) ([]byte, error) {
	body, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", key, err)
	}
	return seal(key, body), nil
}

func unmarshal(key, record []byte, v any) error {
	body, err := unseal(key, record)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(body, v); err != nil {
		return fmt.Errorf("record %s: %w", strconv.Quote(string(key)), err)
	}
	return nil
}
