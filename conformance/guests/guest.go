package guests

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/digitalocean/go-libvirt"
	"github.com/ringwall/ringwall/conformance/guests/probe"
	"github.com/ringwall/ringwall/core"
	"libvirt.org/go/libvirtxml"
)

// Guest is a running VM and the line to the program inside.
type Guest struct {
	spec   Spec
	daemon *Libvirtd
	dom    libvirt.Domain
	probe  *probe.Client
}

// StartGuest defines a guest, starts it, and waits until its probe answers. The
// guest is persistent: Shutdown and Resume, Destroy and StartAgain work.
func (d *Libvirtd) StartGuest(ctx context.Context, s Spec) (*Guest, error) {
	g, err := d.DefineGuest(s)
	if err != nil {
		return nil, err
	}
	return g, g.StartAgain(ctx)
}

// DefineGuest makes a guest known to libvirt without starting it.
func (d *Libvirtd) DefineGuest(s Spec) (*Guest, error) {
	if err := validName(s.Name); err != nil {
		return nil, err
	}
	l, err := d.Conn()
	if err != nil {
		return nil, err
	}
	x, err := s.domain(d.image)
	if err != nil {
		return nil, err
	}
	text, err := x.Marshal()
	if err != nil {
		return nil, err
	}
	dom, err := l.DomainDefineXML(text)
	if err != nil {
		return nil, fmt.Errorf("define guest %s: %w\n%s", s.Name, err, d.log())
	}
	return &Guest{spec: s, daemon: d, dom: dom}, nil
}

// StartAgain starts a guest that is defined, and waits until its probe answers.
func (g *Guest) StartAgain(ctx context.Context) error {
	if err := g.Launch(); err != nil {
		return err
	}
	return g.WaitReady(ctx)
}

// Launch starts a guest and returns as soon as libvirt says that it runs. Its
// kernel has barely begun then.
func (g *Guest) Launch() error {
	return g.with(func(l *libvirt.Libvirt) error { return l.DomainCreate(g.dom) })
}

// WaitReady waits until the probe answers, for at most a minute.
func (g *Guest) WaitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, time.Minute, errors.New("a minute has passed"))
	defer cancel()
	conn, err := g.daemon.dialControl(ctx, g.spec.Name)
	if err != nil {
		return err
	}
	g.hangUp()
	g.probe = probe.NewClient(conn)
	if _, err := g.probe.WaitReady(ctx); err != nil {
		return fmt.Errorf("guest %s: %w\n%s", g.spec.Name, err, g.Console())
	}
	return nil
}

// Probe speaks to the program inside; nil before StartAgain.
func (g *Guest) Probe() *probe.Client { return g.probe }

// Name is the guest's name.
func (g *Guest) Name() string { return g.spec.Name }

// UUID is libvirt's.
func (g *Guest) UUID() string { return formatUUID(g.dom.UUID) }

// Console is the end of the guest kernel's own messages.
func (g *Guest) Console() string { return tail(g.daemon.jail.path(consolePath(g.spec.Name))) }

// XML is libvirt's description of the guest as it is now.
func (g *Guest) XML() (text string, err error) {
	err = g.with(func(l *libvirt.Libvirt) error {
		text, err = l.DomainGetXMLDesc(g.dom, 0)
		return err
	})
	return text, err
}

// Device is the tap of a NIC, empty when there is no such NIC.
func (g *Guest) Device(mac core.MAC) (string, error) {
	text, err := g.XML()
	if err != nil {
		return "", err
	}
	var d libvirtxml.Domain
	if err := d.Unmarshal(text); err != nil {
		return "", err
	}
	for _, i := range d.Devices.Interfaces {
		if i.MAC != nil && i.MAC.Address == mac.String() && i.Target != nil {
			return i.Target.Dev, nil
		}
	}
	return "", nil
}

// Plug adds a NIC to the running guest.
func (g *Guest) Plug(n NIC) error {
	return g.device(n, func(l *libvirt.Libvirt, text string) error {
		return l.DomainAttachDeviceFlags(g.dom, text, uint32(libvirt.DomainDeviceModifyLive))
	})
}

// Unplug takes a NIC from the running guest and waits until it is gone, which
// takes the guest's consent.
func (g *Guest) Unplug(ctx context.Context, n NIC) error {
	err := g.device(n, func(l *libvirt.Libvirt, text string) error {
		return l.DomainDetachDeviceFlags(g.dom, text, uint32(libvirt.DomainDeviceModifyLive))
	})
	for err == nil {
		var device string
		if device, err = g.Device(n.MAC); err == nil && device == "" {
			return nil
		}
		if e := sleep(ctx, 20*time.Millisecond); e != nil {
			return fmt.Errorf("guest %s does not give NIC %s back: %w\n%s", g.spec.Name, n.MAC, e, g.Console())
		}
	}
	return err
}

func (g *Guest) device(n NIC, f func(*libvirt.Libvirt, string) error) error {
	x := n.xml()
	text, err := x.Marshal()
	if err != nil {
		return err
	}
	return g.with(func(l *libvirt.Libvirt) error { return f(l, text) })
}

// Suspend stops the guest's processors, Resume lets them go on.
func (g *Guest) Suspend() error {
	return g.with(func(l *libvirt.Libvirt) error { return l.DomainSuspend(g.dom) })
}

// Resume undoes Suspend.
func (g *Guest) Resume() error {
	return g.with(func(l *libvirt.Libvirt) error { return l.DomainResume(g.dom) })
}

// Destroy pulls the plug. The guest stays defined.
func (g *Guest) Destroy() error {
	g.hangUp()
	return g.with(func(l *libvirt.Libvirt) error { return l.DomainDestroy(g.dom) })
}

// SetMetadata sets the element of a namespace below <metadata>, live and for the
// next start, as virsh metadata --live --config does. Empty removes it.
func (g *Guest) SetMetadata(uri, key, xml string) error {
	opt := func(s string) libvirt.OptString {
		if s == "" {
			return nil
		}
		return libvirt.OptString{s}
	}
	return g.with(func(l *libvirt.Libvirt) error {
		return l.DomainSetMetadata(g.dom, int32(libvirt.DomainMetadataElement), opt(xml), opt(key), opt(uri),
			libvirt.DomainAffectLive|libvirt.DomainAffectConfig)
	})
}

func (g *Guest) hangUp() {
	if g.probe != nil {
		g.probe.Close()
		g.probe = nil
	}
}

func (g *Guest) with(f func(*libvirt.Libvirt) error) error {
	l, err := g.daemon.Conn()
	if err != nil {
		return err
	}
	if err := f(l); err != nil {
		return fmt.Errorf("guest %s: %w", g.spec.Name, err)
	}
	return nil
}

func formatUUID(u libvirt.UUID) string {
	return fmt.Sprintf("%x-%x-%x-%x-%x", u[:4], u[4:6], u[6:8], u[8:10], u[10:])
}
