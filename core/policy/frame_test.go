package policy_test

import (
	"testing"

	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/core/policy"
)

func TestFrameString(t *testing.T) {
	for want, f := range map[string]policy.Frame{
		"02:00:00:00:00:0a > 02:00:00:00:00:ee IPv4 10.0.0.10 > 192.0.2.1 tcp 1>80 [SA]":                                            toX.TCP(1, 80, policy.SYN|policy.ACK),
		"02:00:00:00:00:0a > 02:00:00:00:00:ee 802.1Q vlan 5 802.1Q vlan 0 IPv4 10.0.0.10 > 192.0.2.1 udp 1>2":                      toX.UDP(1, 2).Tagged(5, 0),
		"02:00:00:00:00:0a > 02:00:00:00:00:ee IPv4 10.0.0.10 > 192.0.2.1 protocol 47":                                              toX.Raw(47),
		"02:00:00:00:00:0a > 33:33:ff:00:00:0b IPv6 :: > ff02::1:ff00:b icmpv6 type 135 code 0 target fd00::b hop limit 255":        policy.DAD(macA, b6),
		"02:00:00:00:00:0a > ff:ff:ff:ff:ff:ff ARP request from 02:00:00:00:00:0a 10.0.0.10 to 00:00:00:00:00:00 192.0.2.1":         policy.ARPRequest(macA, a4, x4),
		"02:00:00:00:00:ee > 02:00:00:00:00:0a IPv4 192.0.2.1 > 10.0.0.10 icmp type 3 code 3 about (10.0.0.10 > 192.0.2.1 udp 1>2)": toX.Reverse().Unreachable(toX.UDP(1, 2)),
		"02:00:00:00:00:0a > 02:00:00:00:00:ee IPv4 10.0.0.10 > 192.0.2.1 protocol udp fragment 8+8":                                toX.UDP(1, 2).Fragments(1, 8, 20)[1],
		"02:00:00:00:00:0a > 02:00:00:00:00:ee LLC":                                                                                 policy.Other(macA, macX, 38),
		"02:00:00:00:00:0a > 02:00:00:00:00:ee EtherType 0x88cc":                                                                    policy.Other(macA, macX, policy.TypeLLDP),
	} {
		if got := f.String(); got != want {
			t.Errorf("\n got %s\nwant %s", got, want)
		}
	}
}

func TestGroupMAC(t *testing.T) {
	for a, want := range map[string]string{
		"224.0.0.1": "01:00:5e:00:00:01", "239.129.1.2": "01:00:5e:01:01:02", "255.255.255.255": "ff:ff:ff:ff:ff:ff",
		"10.0.0.255": "ff:ff:ff:ff:ff:ff", "ff02::1:ff00:b": "33:33:ff:00:00:0b",
	} {
		if got := policy.GroupMAC(ip(a)).String(); got != want {
			t.Errorf("%s: got %s, want %s", a, got, want)
		}
	}
}

func TestFragmentsReassemble(t *testing.T) {
	f := toX.UDP(1, 2)
	fs := f.Fragments(9, 16, 40)
	if len(fs) != 3 || fs[2].IP.Fragment != (policy.Fragment{ID: 9, Offset: 32, Length: 8}) || fs[0].IP.Fragment.Whole() {
		t.Fatalf("fragments %v", fs)
	}
	whole, ok := policy.Reassemble(fs)
	if !ok || diff(f, whole) != "" {
		t.Errorf("reassembled %v, %v", whole, ok)
	}
	if f.IP.Transport.Protocol() != core.ProtocolUDP || !f.IP.Fragment.Whole() {
		t.Error("the original was changed")
	}
}
