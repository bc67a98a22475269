package kvm_test

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/ringwall/ringwall/conformance/guests"
	"github.com/ringwall/ringwall/conformance/lab"
	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/hypervisors/kvm"
)

// site is a real libvirtd in a host of its own, and an adapter that looks at it.
type site struct {
	t       *testing.T
	ctx     context.Context
	host    *lab.Host
	daemon  *guests.Libvirtd
	adapter core.HypervisorAdapter
	events  <-chan core.VMEvent
}

func newSite(t *testing.T, o guests.LibvirtdOptions) *site {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	t.Cleanup(cancel)
	s := &site{t: t, ctx: ctx}
	image, err := guests.BuildImage(ctx, filepath.Join(t.TempDir(), "initrd"), guests.ImageOptions{})
	s.must(err)
	s.host, err = lab.New(ctx, lab.Options{})
	s.must(err)
	t.Cleanup(func() { s.host.Close() })
	for _, b := range []string{"br0", "br1"} {
		s.must(s.host.AddBridge(lab.BridgeSpec{Name: b}))
	}
	o.Namespace, o.Image = s.host.Namespace, image
	s.daemon, err = guests.StartLibvirtd(ctx, o)
	s.must(err)
	t.Cleanup(func() {
		if err := s.daemon.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func (s *site) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

// open opens the adapter in the host's namespace and watches.
func (s *site) open() {
	s.t.Helper()
	s.must(s.host.Do(func() (err error) {
		s.adapter, err = kvm.Driver().Open(s.ctx, core.Settings{"uri": s.daemon.URI(), "timeout": "5s"})
		return err
	}))
	s.t.Cleanup(func() { s.adapter.Close() })
	var err error
	s.events, err = s.adapter.Watch(s.ctx)
	s.must(err)
	s.await("the first resync", func(e core.VMEvent) bool { return e.Kind == core.VMResync })
}

// await takes events until one is as wished. Events repeat themselves, so the
// ones before say nothing.
func (s *site) await(what string, is func(core.VMEvent) bool) core.VMEvent {
	s.t.Helper()
	timeout := time.After(time.Minute)
	var seen []string
	for {
		select {
		case e := <-s.events:
			if is(e) {
				return e
			}
			seen = append(seen, fmt.Sprintf("%v %+v", e.Kind, e.Instance))
		case <-timeout:
			s.t.Fatalf("no event for %s; seen:\n%s", what, strings.Join(seen, "\n"))
		}
	}
}

func changedTo(kind core.VMEventKind, want core.Instance) func(core.VMEvent) bool {
	return func(e core.VMEvent) bool { return e.Kind == kind && cmp.Equal(want, e.Instance, comparers) }
}

func (s *site) expectList(want ...core.Instance) {
	s.t.Helper()
	got, err := s.adapter.List(s.ctx)
	s.must(err)
	if diff := cmp.Diff(want, got, comparers); diff != "" {
		s.t.Fatalf("list (-want +got):\n%s", diff)
	}
}

// The forms that libvirt itself writes: a NIC on a libvirt network, one with an
// nwfilter, one whose tap was moved by hand.
func TestRealLibvirtForms(t *testing.T) {
	t.Parallel()
	s := newSite(t, guests.LibvirtdOptions{})
	l, err := s.daemon.Conn()
	s.must(err)
	network, err := l.NetworkDefineXML(`<network><name>shared</name><forward mode='bridge'/><bridge name='br1'/></network>`)
	s.must(err)
	s.must(l.NetworkCreate(network))
	_, err = l.NwfilterDefineXML(`<filter name='mine'><rule action='accept' direction='inout' priority='500'/></filter>`)
	s.must(err)
	g, err := s.daemon.DefineGuest(guests.Spec{Name: "r-4-VM", NICs: []guests.NIC{
		{MAC: mac(1), Network: "shared"},
		{MAC: mac(2), Bridge: "br0", Filter: "mine", Parameters: []guests.Parameter{{Name: "IP", Value: "10.0.0.2"}, {Name: "IP", Value: "10.0.0.3"}}},
		{MAC: mac(3), Bridge: "br0", Device: "moved"},
	}})
	s.must(err)
	s.must(g.Launch())
	links, err := s.host.Links()
	s.must(err)
	tap, err := links.LinkByName("moved")
	s.must(err)
	bridge, err := links.LinkByName("br1")
	s.must(err)
	s.must(links.LinkSetMaster(tap, bridge))

	s.open()
	s.expectList(core.Instance{VM: core.VM{Key: core.VMKey(g.UUID()), Name: "r-4-VM", NICs: []core.NIC{
		{MAC: mac(1), Binding: on("br1", "vnet0")},
		{MAC: mac(2), Binding: on("br0", "vnet1"), Addresses: addrs("10.0.0.2", "10.0.0.3")},
		{MAC: mac(3), Binding: on("br1", "moved")},
	}}})
	checks, err := s.adapter.Preflight(s.ctx)
	s.must(err)
	got := map[string]core.Status{}
	for _, c := range checks {
		got[c.Name] = c.Status
	}
	delete(got, "br-netfilter") // the machine's
	want := map[string]core.Status{"libvirt": core.StatusOK, "bridges": core.StatusOK, "nwfilter": core.StatusError,
		"unfiltered-nics": core.StatusOK, "domains": core.StatusOK}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("checks (-want +got):\n%s\n%+v", diff, checks)
	}

	// The layouts: whichever socket serves is used.
	hangsUp := listen(t, func(c net.Conn) { c.Close() })
	c, err := kvm.Dialer{Sockets: []string{"/none/virtqemud-sock", hangsUp, s.daemon.Socket()}}.Connect(s.ctx)
	s.must(err)
	v, err := c.Version(s.ctx)
	if err != nil || v < 1_000_000 {
		t.Errorf("version %v, %v", v, err)
	}
	s.must(c.Close())

	// A daemon that hangs: its socket still takes connections.
	s.must(s.daemon.Freeze(s.ctx))
	if got, err := s.adapter.List(s.ctx); err == nil {
		t.Errorf("list of a frozen libvirtd: %v", got)
	}
	s.must(s.daemon.Thaw(s.ctx))
	if _, err := s.adapter.List(s.ctx); err != nil {
		t.Error(err)
	}
}

// docCommand runs the command of the adapter's page that has the option.
func (s *site) docCommand(option string) {
	s.t.Helper()
	page := readFile(s.t, "../../docs/hypervisors/kvm.md")
	for block := range strings.SplitSeq(page, "```sh\n") {
		block, _, _ = strings.Cut(block, "```")
		for _, command := range strings.SplitAfter(block, "\n") {
			at := strings.Index(block, command)
			if !strings.Contains(command, option) || !strings.HasPrefix(command, "virsh ") {
				continue
			}
			cmd := exec.CommandContext(s.ctx, "sh", "-ec", block[at:]) // --set's XML is on the lines after it
			cmd.Env = append(os.Environ(), "VIRSH_DEFAULT_CONNECT_URI="+s.daemon.URI())
			if out, err := cmd.CombinedOutput(); err != nil {
				s.t.Fatalf("%s: %v\n%s", command, err, out)
			}
			return
		}
	}
	s.t.Fatalf("the page has no virsh command with %s", option)
}

func TestRealLibvirt(t *testing.T) {
	t.Parallel()
	s := newSite(t, guests.LibvirtdOptions{})
	s.open()

	nic := guests.NIC{MAC: mac(1), Bridge: "br0"}
	g, err := s.daemon.DefineGuest(guests.Spec{Name: "web-1", NICs: []guests.NIC{nic},
		Metadata: `<r:vm xmlns:r="urn:ringwall:vm:1"><r:nic mac="52:54:00:00:00:01"><r:address>10.0.0.1</r:address><r:group>web</r:group></r:nic></r:vm>`})
	s.must(err)
	s.must(g.Launch())
	want := core.Instance{Claims: true, VM: core.VM{Key: core.VMKey(g.UUID()), Name: "web-1", NICs: []core.NIC{
		{MAC: mac(1), Addresses: addrs("10.0.0.1"), Groups: []string{"web"}, Binding: on("br0", "vnet0")}}}}
	s.await("the start", changedTo(core.VMStarted, want))
	s.expectList(want)

	// As virsh metadata does it; the same for a second NIC that is not there yet.
	s.must(g.SetMetadata(kvm.Namespace, kvm.Key, `<vm><nic mac="52:54:00:00:00:01"><address>10.0.0.1</address><group>db</group></nic>`+
		`<nic mac="52:54:00:00:00:02" anti-spoofing="off"><group>web</group></nic></vm>`))
	want.VM.NICs[0].Groups = []string{"db"}
	s.await("new metadata", changedTo(core.VMChanged, want))

	s.must(g.WaitReady(s.ctx)) // unplugging needs the guest
	second := guests.NIC{MAC: mac(2), Bridge: "br1", Device: "tap-two"}
	s.must(g.Plug(second))
	one := want
	want.VM.NICs = append(want.VM.NICs[:1:1], core.NIC{MAC: mac(2), Groups: []string{"web"}, SpoofingAllowed: true, Binding: on("br1", "tap-two")})
	s.await("the second NIC", changedTo(core.VMChanged, want))
	s.expectList(want)

	s.must(g.Suspend())
	s.expectList(want)
	s.must(g.Resume())

	for name, end := range map[string]func(context.Context) error{"stop": s.daemon.Stop, "kill": s.daemon.Kill} {
		s.must(end(s.ctx))
		if got, err := s.adapter.List(s.ctx); err == nil {
			t.Errorf("after %s: list %v; want an error, an empty list would remove VMs", name, got)
		}
		s.must(s.daemon.Start(s.ctx))
		s.await("resync after "+name, func(e core.VMEvent) bool { return e.Kind == core.VMResync })
		s.expectList(want)
	}

	s.must(g.Unplug(s.ctx, second))
	s.await("the second NIC's end", changedTo(core.VMChanged, one))

	s.docCommand("--set")
	pairs := []core.AddressPair{{Prefix: netip.MustParsePrefix("10.0.0.100/32"), MAC: core.MAC{0, 0, 0x5e, 0, 1, 1}}}
	one.VM.NICs[0] = core.NIC{MAC: mac(1), Addresses: addrs("10.0.0.1", "fd00::11"), Pairs: pairs, Groups: []string{"web", "bastion"}, Binding: on("br0", "vnet0")}
	s.await("metadata by virsh", changedTo(core.VMChanged, one))
	s.docCommand("--remove")
	s.await("no metadata", func(e core.VMEvent) bool { return e.Kind == core.VMChanged && !e.Instance.Claims })

	s.must(g.Destroy())
	gone := core.Instance{VM: core.VM{Key: want.VM.Key, Name: "web-1"}}
	s.await("the end", changedTo(core.VMStopped, gone))
	s.expectList()

	s.must(g.Launch())
	s.await("the next start", func(e core.VMEvent) bool { return e.Kind == core.VMStarted })
}
