package kvm_test

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/hypervisors/kvm"
)

func TestParseMetadata(t *testing.T) {
	system := core.SystemVM
	for text, want := range map[string]kvm.Metadata{
		`<vm xmlns="urn:ringwall:vm:1"/>`:                   {},
		`<r:vm xmlns:r="urn:ringwall:vm:1" kind="system"/>`: {Kind: &system},
		`<vm xmlns="urn:ringwall:vm:1"><nic mac="52-54-00-00-00-01" anti-spoofing="on"><address> 10.0.0.1 </address><group> web </group></nic></vm>`: {
			NICs: []kvm.NICMetadata{{MAC: mac(1), Addresses: addrs("10.0.0.1"), Groups: []string{"web"}}}},
		`<vm xmlns="urn:ringwall:vm:1"><nic mac="52:54:00:00:00:01" anti-spoofing="off"><allowed-pair address="10.0.0.7/24"/></nic></vm>`: {
			NICs: []kvm.NICMetadata{{MAC: mac(1), SpoofingAllowed: true, Pairs: []core.AddressPair{{Prefix: netip.MustParsePrefix("10.0.0.0/24")}}}}},
	} {
		got, err := kvm.ParseMetadata(text)
		if diff := cmp.Diff(want, got, comparers); diff != "" || err != nil {
			t.Errorf("%s: error %v (-want +got):\n%s", text, err, diff)
		}
	}
}

func TestParseMetadataRefuses(t *testing.T) {
	vm := func(s string) string { return `<vm xmlns="urn:ringwall:vm:1">` + s + `</vm>` }
	nic := func(s string) string { return vm(`<nic mac="52:54:00:00:00:01">` + s + `</nic>`) }
	for _, tc := range []struct{ text, want string }{
		{``, "metadata: EOF"},
		{`<vm/>`, "urn:ringwall:vm:1"},
		{`<vm xmlns="urn:ringwall:vm:1" kind="root"/>`, `vm.kind: "root": use user or system`},
		{`<vm xmlns="urn:ringwall:vm:1" kind=""/>`, `vm.kind: use user or system`},
		{`<vm xmlns="urn:ringwall:vm:1" knd="user"/>`, `vm: "knd": no such attribute`},
		{vm(`<nik/>`), `vm: "nik": no such element`},
		{vm(`<nic xmlns="urn:other" mac="52:54:00:00:00:01"/>`), `vm: "nic": no such element`},
		{vm(`web`), `vm: "web": text where elements belong`},
		{vm(`<nic/>`), `vm.nic[0].mac: not a unicast MAC address`},
		{vm(`<nic mac="ff:ff:ff:ff:ff:ff"/>`), `vm.nic[0].mac: "ff:ff:ff:ff:ff:ff": not a unicast`},
		{vm(`<nic mac="52:54:00:00:00:01"/><nic mac="52:54:00:00:00:01"/>`), `vm.nic[1].mac: 52:54:00:00:00:01: is nic[0]'s too`},
		{vm(`<nic mac="52:54:00:00:00:01" anti-spoofing="no"/>`), `vm.nic[0].anti-spoofing: "no": use on or off`},
		{nic(`<address>10.0.0.0/24</address>`), `vm.nic[0].address[0]: "10.0.0.0/24": not an IP address`},
		{nic(`<address>10.0.0.1</address><address>224.0.0.1</address>`), `vm.nic[0].address[1]: 224.0.0.1: a multicast`},
		{nic(`<address><b/>10.0.0.1</address>`), `vm.nic[0].address[0]: "b": no such element`},
		{nic(`<address family="4">10.0.0.1</address>`), `vm.nic[0].address[0]: "family": no such attribute`},
		{nic(`<allowed-pair/>`), `vm.nic[0].allowed-pair[0].address: not an IP address or CIDR`},
		{nic(`<allowed-pair address="10.0.0.1" mac="x"/>`), `vm.nic[0].allowed-pair[0].mac: "x"`},
		{nic(`<allowed-pair address="127.0.0.0/8"/>`), `vm.nic[0].allowed-pair[0].address: 127.0.0.0/8: a loopback`},
		{nic(`<group/>`), `name: missing`},
		{nic(`<group>cloudstack/i-2-7-VM</group>`), `cloudstack/i-2-7-VM: names that start with`},
		{nic(`<group>a b</group>`), `a b: not a group name`},
		{nic(strings.Repeat(`<group>a</group>`, 1025)), `vm.nic[0]: 1025 elements of one kind; at most 1024`},
		{vm(manyNICs(257)), `vm: 257 nic elements; at most 256`},
	} {
		_, err := kvm.ParseMetadata(tc.text)
		if !errors.Is(err, core.ErrInvalid) || !strings.Contains(fmt.Sprint(err), tc.want) {
			t.Errorf("%.120s:\n  got  %v\n  want %s", tc.text, err, tc.want)
		}
	}
}

func manyNICs(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, `<nic mac="52:54:00:00:%02x:%02x"/>`, i>>8, i&255)
	}
	return b.String()
}

func TestEveryFaultOfMetadataIsTold(t *testing.T) {
	_, err := kvm.ParseMetadata(`<vm xmlns="urn:ringwall:vm:1" a="1"><b/><nic mac="x"><address>y</address></nic></vm>`)
	if n := strings.Count(fmt.Sprint(err), "\n") + 1; n != 4 {
		t.Errorf("%d faults, want 4:\n%v", n, err)
	}
}

// A form of another version is not somebody else's metadata.
func TestMetadataOfAnotherVersionIsAFault(t *testing.T) {
	for _, text := range []string{`<vm xmlns="urn:ringwall:vm:2"/>`, `<vms xmlns="urn:ringwall:vm:1"/>`,
		`<vm xmlns="urn:ringwall:vm:1"/><vm xmlns="urn:ringwall:vm:1"/>`} {
		d, err := kvm.ParseDomain(domain("a", text), kvm.ParseOptions{})
		if err != nil || d.Metadata == nil || len(d.Problems) != 1 {
			t.Errorf("%s: metadata %v, problems %v, error %v", text, d.Metadata, d.Problems, err)
		}
	}
	for _, text := range []string{"", `<vm xmlns="urn:other"/>`, `<vm/>`} {
		d, err := kvm.ParseDomain(domain("a", text), kvm.ParseOptions{})
		if err != nil || d.Metadata != nil || len(d.Problems) != 0 {
			t.Errorf("%s: metadata %v, problems %v, error %v", text, d.Metadata, d.Problems, err)
		}
	}
}

// The form that the adapter's page shows.
func TestMetadataOfThePage(t *testing.T) {
	_, x, _ := strings.Cut(readFile(t, "../../docs/hypervisors/kvm.md"), "```xml\n<metadata>")
	x, _, _ = strings.Cut(x, "</metadata>")
	d, err := kvm.ParseDomain(domain("a", x), kvm.ParseOptions{})
	if err != nil || len(d.Problems) > 0 || d.Metadata == nil {
		t.Fatalf("%v, %v, %v", d.Metadata, d.Problems, err)
	}
	if n := d.Metadata.NIC(mac(1)); len(n.Addresses) != 1 || len(n.Pairs) != 1 || len(n.Groups) != 1 {
		t.Errorf("%+v", n)
	}
}
