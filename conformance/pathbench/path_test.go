package pathbench

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ringwall/ringwall/conformance/lab"
	"github.com/ringwall/ringwall/conformance/lab/labtest"
	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/core/policy"
	"github.com/ringwall/ringwall/drivers/nftables"
)

// bed is one bridge with two VMs and an uplink; the same for the baseline and
// for every backend.
type bed struct {
	a, b, u *lab.Station
	host    *labtest.Host
}

var (
	macs  = []core.MAC{{2, 0, 0, 0, 0, 1}, {2, 0, 0, 0, 0, 2}, {2, 0, 0, 0, 0, 9}}
	addrs = []netip.Addr{netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2"), netip.MustParseAddr("10.0.0.9")}
)

func newBed(b *testing.B) *bed {
	h := labtest.New(b, lab.Options{})
	h.AddBridge(lab.BridgeSpec{Name: "br0", MAC: core.MAC{2, 0, 0, 0, 0, 0xfe}})
	port := func(i int, device string) []lab.PortSpec {
		return []lab.PortSpec{{Bridge: "br0", Device: device, MAC: macs[i], Addresses: []netip.Prefix{netip.PrefixFrom(addrs[i], 24)}}}
	}
	s := h.AddStations(
		lab.StationSpec{Name: "a", Offloads: true, Ports: port(0, "vnet0")},
		lab.StationSpec{Name: "b", Offloads: true, Ports: port(1, "vnet1")},
		lab.StationSpec{Name: "u", Offloads: true, Ports: port(2, "eth1")})
	return &bed{s[0], s[1], s[2], h}
}

// track turns connection tracking on, and nothing else: what every firewall on
// this bridge pays.
func (x *bed) track(b *testing.B) {
	labtest.Check(b, x.host.Do(trackOnly))
}

// enforce programs n NICs, of which a and b are the first two.
func (x *bed) enforce(b *testing.B, n int) {
	in := policy.Input{Options: core.Options{Bridges: []core.Pattern{"br*"}, VMPorts: []core.Pattern{"vnet*"}}}
	in.Groups = []core.Group{{Name: "open", Rules: []core.Rule{
		{Direction: core.Ingress, Protocol: core.ProtocolTCP, Ports: []core.Span{{First: 5000, Last: 6000}}},
		{Direction: core.Ingress, Protocol: core.ProtocolUDP, Ports: []core.Span{{First: 5000, Last: 6000}}},
	}}}
	for i := range n {
		k := core.NIC{MAC: core.MAC{2, 0, 0, 1, byte(i >> 8), byte(i)}, Groups: []string{"open"},
			Addresses: []netip.Addr{netip.AddrFrom4([4]byte{10, 1, byte(i >> 8), byte(i)})},
			Binding:   core.Binding{Bridge: "br0", Devices: []string{fmt.Sprintf("vnet%d", i)}}}
		if i < 2 {
			k.MAC, k.Addresses = macs[i], addrs[i:i+1]
		}
		in.VMs = append(in.VMs, core.VM{Key: core.VMKey(fmt.Sprint(i)), Name: fmt.Sprint(i), NICs: []core.NIC{k}})
	}
	var backend core.SecurityGroupBackend
	labtest.Check(b, x.host.Do(func() (err error) {
		backend, err = nftables.Driver().Open(context.Background(), nil)
		return err
	}))
	b.Cleanup(func() { backend.Close() })
	labtest.Check(b, backend.Sync(b.Context(), labtest.Must(policy.Compile(in))(b)))
}

// measure is one kind of traffic: it does it for a while and says how long one
// unit took.
type measure func(x *bed, to *lab.Station, dst netip.Addr) (time.Duration, error)

// BenchmarkPath measures all kinds of traffic, VM to VM and VM to uplink, in
// rounds that take turns between the baseline and the policies, so that a slow
// moment of the machine falls on all alike. It reports the quick ones of each, and
// the ratios.
func BenchmarkPath(b *testing.B) {
	kinds := []struct {
		name string
		run  measure
	}{
		{"established", established}, {"first-packet", firstPacket}, {"connections", connections}, {"bulk", bulk},
	}
	beds := map[string]*bed{"tracked": newBed(b), "nics=1": newBed(b), "nics=1000": newBed(b)}
	beds["tracked"].track(b)
	beds["nics=1"].enforce(b, 2)
	beds["nics=1000"].enforce(b, 1000)
	names := []string{"tracked", "nics=1", "nics=1000"}
	for _, kind := range kinds {
		for _, toVM := range []bool{true, false} {
			where := "vm-uplink"
			if toVM {
				where = "vm-vm"
			}
			b.Run(kind.name+"/"+where, func(b *testing.B) {
				took := map[string][]time.Duration{}
				for b.Loop() {
					for _, n := range names {
						x := beds[n]
						to, dst := x.u, addrs[2]
						if toVM {
							to, dst = x.b, addrs[1]
						}
						d, err := kind.run(x, to, dst)
						labtest.Check(b, err)
						took[n] = append(took[n], d)
					}
				}
				base := quick(took["tracked"])
				b.ReportMetric(0, "ns/op")
				b.ReportMetric(float64(base.Nanoseconds()), "base-ns")
				b.ReportMetric(float64(quick(took["nics=1"]))/float64(base), "x-1-nic")
				b.ReportMetric(float64(quick(took["nics=1000"]))/float64(base), "x-1000-nics")
			})
		}
	}
}

// quick is the first decile: other work on the machine only ever adds to a time,
// so the quick rounds are the ones that were left alone.
func quick(d []time.Duration) time.Duration {
	slices.Sort(d)
	return d[len(d)/10]
}

// raw sends frames from a's interface, as a VM's would come in, one system call
// each; the kernel takes each all the way to the receiver's interface before it
// returns.
func raw(x *bed, count int, frame func(i int) []byte) (time.Duration, error) {
	var took time.Duration
	err := x.a.Do(func() error {
		ifi, err := net.InterfaceByName("eth0")
		if err != nil {
			return err
		}
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		if err := unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_QDISC_BYPASS, 1); err != nil {
			return err
		}
		to := &unix.SockaddrLinklayer{Ifindex: ifi.Index}
		start, err := threadTime()
		if err != nil {
			return err
		}
		for i := range count {
			if err := unix.Sendto(fd, frame(i), 0, to); err != nil && err != unix.ENOBUFS {
				return err
			}
		}
		end, err := threadTime()
		took = end - start
		return err
	})
	return took / time.Duration(count), err
}

// threadTime is the processor time of the calling thread. A veth's packets are
// worked off on the processor that sent them, mostly before the system call
// returns, so this is what they cost, whatever else the machine is doing.
func threadTime() (time.Duration, error) {
	var t unix.Timespec
	err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &t)
	return time.Duration(t.Nano()), err
}

// udpFrame is a datagram of 64 bytes from a, without a UDP checksum.
func udpFrame(dstMAC core.MAC, dst netip.Addr, srcPort, dstPort uint16) []byte {
	f := make([]byte, 14+20+8+64)
	copy(f, dstMAC[:])
	copy(f[6:], macs[0][:])
	binary.BigEndian.PutUint16(f[12:], 0x0800)
	ip := f[14:]
	ip[0], ip[8], ip[9] = 0x45, 64, 17
	binary.BigEndian.PutUint16(ip[2:], uint16(len(ip)))
	src, to := addrs[0].As4(), dst.As4()
	copy(ip[12:], src[:])
	copy(ip[16:], to[:])
	var sum uint32
	for i := 0; i < 20; i += 2 {
		sum += uint32(binary.BigEndian.Uint16(ip[i:]))
	}
	binary.BigEndian.PutUint16(ip[10:], ^uint16(sum+sum>>16))
	udp := ip[20:]
	binary.BigEndian.PutUint16(udp, srcPort)
	binary.BigEndian.PutUint16(udp[2:], dstPort)
	binary.BigEndian.PutUint16(udp[4:], uint16(len(udp)))
	return f
}

func macOf(dst netip.Addr) core.MAC { return macs[slices.Index(addrs, dst)] }

const packets = 20000

func established(x *bed, to *lab.Station, dst netip.Addr) (time.Duration, error) {
	// An echo makes the flow established; what follows needs no answer.
	conn, err := to.ListenPacket(context.Background(), "udp", ":5500")
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	client, err := x.a.Dial(context.Background(), "udp", net.JoinHostPort(dst.String(), "5500"))
	if err != nil {
		return 0, err
	}
	defer client.Close()
	buf := make([]byte, 64)
	if _, err := client.Write(buf); err != nil {
		return 0, err
	}
	conn.SetReadDeadline(time.Now().Add(2 * time.Second))
	_, from, err := conn.ReadFrom(buf)
	if err != nil {
		return 0, fmt.Errorf("the flow does not open: %w", err)
	}
	if _, err := conn.WriteTo(buf, from); err != nil {
		return 0, err
	}
	client.SetReadDeadline(time.Now().Add(2 * time.Second))
	if _, err := client.Read(buf); err != nil {
		return 0, fmt.Errorf("no answer: %w", err)
	}
	f := udpFrame(macOf(dst), dst, uint16(client.LocalAddr().(*net.UDPAddr).Port), 5500)
	return raw(x, packets, func(int) []byte { return f })
}

func firstPacket(x *bed, to *lab.Station, dst netip.Addr) (time.Duration, error) {
	conn, err := to.ListenPacket(context.Background(), "udp", ":5600")
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	f := udpFrame(macOf(dst), dst, 0, 5600)
	return raw(x, packets, func(i int) []byte {
		binary.BigEndian.PutUint16(f[14+20:], uint16(10000+i))
		return f
	})
}

func connections(x *bed, to *lab.Station, dst netip.Addr) (time.Duration, error) {
	l, err := to.Listen(context.Background(), "tcp", ":5700")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			c.Close()
		}
	}()
	const count = 300
	start := time.Now()
	for range count {
		c, err := x.a.Dial(context.Background(), "tcp", net.JoinHostPort(dst.String(), "5700"))
		if err != nil {
			return 0, err
		}
		c.Read(make([]byte, 1)) // its end
		c.Close()
	}
	return time.Since(start) / count, nil
}

func bulk(x *bed, to *lab.Station, dst netip.Addr) (time.Duration, error) {
	l, err := to.Listen(context.Background(), "tcp", ":5800")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	const size = 256 << 20
	done := make(chan error, 1)
	go func() {
		c, err := l.Accept()
		if err == nil {
			_, err = io.CopyN(io.Discard, c, size)
			c.Close()
		}
		done <- err
	}()
	c, err := x.a.Dial(context.Background(), "tcp", net.JoinHostPort(dst.String(), "5800"))
	if err != nil {
		return 0, err
	}
	defer c.Close()
	start := time.Now()
	buf := make([]byte, 256<<10)
	for sent := 0; sent < size; sent += len(buf) {
		if _, err := c.Write(buf); err != nil {
			return 0, err
		}
	}
	if err := <-done; err != nil {
		return 0, err
	}
	return time.Since(start) / (size >> 20), nil // a MiB
}
