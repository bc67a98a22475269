// Package lab builds hypervisor hosts out of network namespaces, sends exact
// frames through them, and reports where each frame arrived.
//
// # Building
//
// A Host is a namespace with bridges. Everything that is plugged into it (a VM,
// the outside world behind an uplink, a routed neighbour) is a Station: a
// namespace of its own, joined to the host by one veth per Port.
//
//	h, err := lab.New(ctx, lab.Options{Forwarding: true})
//	defer h.Close()
//	h.AddBridge(lab.BridgeSpec{Name: "br0", MAC: mac, Addresses: prefixes})
//	vms, err := h.AddStations(
//		lab.StationSpec{Name: "a", Ports: []lab.PortSpec{{
//			Bridge: "br0", Device: "vnet0", MAC: macA,
//			Addresses: []netip.Prefix{a4, a6}, Gateways: []netip.Addr{gw4, gw6},
//		}}},
//		lab.StationSpec{Name: "fabric", Ports: []lab.PortSpec{{Bridge: "br0", Device: "eth1", MAC: macU, Addresses: u}}},
//		lab.StationSpec{Name: "x", Ports: []lab.PortSpec{{Device: "eth9", HostAddresses: gwX, Addresses: x}}}, // no bridge: routed
//	)
//	vms[0].Stop(); vms[0].Start(); vms[0].Move(otherHost); vms[0].AddPort(spec) // hot plug
//	lab.Cable(lab.CableEnd{Host: h1, ...}, lab.CableEnd{Host: h2, ...})           // joins bridges of two hosts
//
// A station with Mute set has no addresses in its namespace: its kernel answers
// nothing, so that only crafted frames move. Namespaces are anonymous: they
// vanish with the process, however it ends. NetnsName makes one visible in
// /run/netns. Hosts are independent of each other; tests run in parallel.
//
// # Frames
//
// Package frame (conformance/lab/frame) builds bytes: frame.Build(layers...)
// for full control, frame.Flow for the usual ones, and transformations:
//
//	fl := lab.FlowBetween(a.Port(0), b.Port(0), core.IPv4)      // frame.Flow
//	fl.UDP(1000, 53, "x"); fl.TCP(frame.TCP{...}); fl.Echo(1, 1, "x")
//	fl.UDP(1000, 53, "x").Tagged(frame.VLAN{ID: 5})
//	fl.UDP(1000, 53, long).Fragments(256)
//
// # Probing
//
// An Observatory watches ports (every one promiscuously, so a leak to any of
// them is seen) and sends whole batches at once:
//
//	o, err := lab.Observe(a.Port(0), b.Port(0), fabric.Port(0), h.Stack())
//	defer o.Close()
//	seen, err := o.Send(ctx,
//		lab.Probe{Name: "plain", From: a.Port(0), Frame: f1},
//		lab.Probe{Name: "vlan 0", From: a.Port(0), Frame: f2})
//	seen[0].At(b.Port(0))  // bool
//	seen[0].Ports()        // everywhere it arrived, sorted by name
//	seen[0].Packets(...)   // the captured bytes, VLAN tags put back
//
// A negative answer takes microseconds, not a timeout: see fence.go. Send order
// is kept. Host.Port("br0") is the host's own end, Host.Stack() is what the
// host's IP stack accepted (after every INPUT hook).
//
// # Real traffic
//
//	lab.Ping(ctx, a, dst, lab.PingOptions{})              // echo request and reply, v4 or v6
//	lab.StartEcho(ctx, b, lab.TCP(80)); lab.Connect(ctx, a, dst, lab.TCP(80), lab.ConnectOptions{})
//	f, err := lab.StartFlow(ctx, lab.FlowSpec{...})       // long-lived, both ends talk; f.Progress(d)
//	fl, err := lab.StartFlood(ctx, lab.FloodSpec{Rate: 5000, ...}); stats := fl.Stop()
//	station.Do(func() error { ... })                      // anything, in that namespace
//	station.Listen(ctx, "tcp", ":80"); station.Dial(ctx, "tcp", "10.0.0.2:80")
//
// # Matrix
//
//	m := lab.NewMatrix(a, b, fabric, h)
//	m.Expect("a", "b", lab.TCP(80), true)
//	m.ExpectAll(lab.ICMP(), false)
//	report, err := m.Run(ctx)   // report.Failed(), report.Text(), report.Print(os.Stdout)
//
// # Tests
//
// Package labtest wraps the constructors for testing.TB: labtest.New(t, ...)
// closes the host with the test and fails it on any error. labtest.Main(m)
// fails a test binary that leaves a namespace, thread, socket or link behind.
package lab
