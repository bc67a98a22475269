// Package guests runs real virtual machines for tests: QEMU guests with a
// Debian kernel and a tiny initramfs, alone or under a private libvirtd, and a
// program inside each that does what the test says.
//
// # A libvirtd of one's own
//
// Libvirtd is a real daemon in PID and mount namespaces of its own; taps and
// bridges are in a network namespace of the caller's choice, usually a host of
// the packet lab, so that a driver can be opened in the same one:
//
//	image, err := guests.BuildImage(ctx, filepath.Join(t.TempDir(), "initrd"), guests.ImageOptions{})
//	h := labtest.New(t, lab.Options{})                   // conformance/lab
//	h.AddBridge(lab.BridgeSpec{Name: "br0"})
//	d, err := guests.StartLibvirtd(ctx, guests.LibvirtdOptions{Namespace: h.Namespace, Image: image})
//	defer d.Close()                                      // guests, daemon, files: all gone
//	d.URI()                                              // for an adapter or virsh
//	d.Restart(ctx); d.Stop(ctx); d.Kill(ctx); d.Start(ctx); d.Freeze(ctx); d.Thaw(ctx)
//	d.Dir("/etc/libvirt/hooks")                          // its folders, seen from outside
//
// # Guests
//
//	g, err := d.StartGuest(ctx, guests.Spec{
//		Name: "a",
//		NICs: []guests.NIC{{MAC: macA, Bridge: "br0"}},  // Device, Network, Filter
//		Metadata: "<ringwall:vm ...>",
//		Boot: probe.Config{
//			Links: []probe.Link{{NIC: macA, Addresses: prefixes, Gateways: via}},
//			Flood: &probe.Flood{NIC: macA, Frame: frame}, // sends from its first instruction
//		},
//	})
//	g.Plug(nic); g.Unplug(ctx, nic); g.Suspend(); g.Resume(); g.Destroy(); g.StartAgain(ctx)
//	g.SetMetadata(uri, key, xml); g.Device(mac) // its tap; g.UUID(); g.XML(); g.Console()
//	d.DefineGuest(spec); g.Launch(); g.WaitReady(ctx)    // in steps
//
// # What a guest does
//
// Guest.Probe is a probe.Client; see package probe for the requests:
//
//	p := g.Probe()
//	p.Configure(ctx, probe.Link{NIC: macA, MAC: other, Addresses: prefixes})   // change MAC, addresses
//	p.Reaches(ctx, addr); p.Ping(ctx, probe.Ping{...})
//	p.Listen(ctx, probe.Listen{Network: "tcp", Port: 80}); p.Dial(ctx, probe.Dial{...})
//	p.Send(ctx, macA, frames...)                                               // raw frames
//	p.Capture(ctx, macA); got, err := p.Captured(ctx, macA)                    // what arrived
//	p.Flood(ctx, probe.Flood{...}); p.StopFlood(ctx)
//
// # A program in a guest
//
// Run boots a guest, runs one static program (a test binary built with
// CGO_ENABLED=0) and gives its output and exit status: for what needs another
// kernel than the machine's.
//
//	image, err := guests.BuildImage(ctx, path, guests.ImageOptions{
//		Modules: guests.PacketLabModules, Files: map[string]string{"bin/lab.test": binary}})
//	r, err := guests.Run(ctx, guests.RunSpec{Image: image, Argv: []string{"/bin/lab.test", "-test.v"}})
//
// # What it needs
//
// Root, qemu-system-x86, libvirt-daemon-system, busybox-static, a Go toolchain
// and, the first time, apt-get: the kernel's package is kept below CacheDir.
// Guests are emulated (TCG), /dev/kvm or not: about five seconds to boot and
// 200 MB each.
//
// Nothing of the machine is touched, tests may run side by side, and all
// processes and files go with the test however it ends: the first process of
// the PID namespace waits for the end of a pipe (see internal/jail).
package guests
