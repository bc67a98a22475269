// Package hook puts a VIF under its policy before its first packet. It stands in
// for xenopsd's setup-vif-rules, which runs when a VM's interface has been put
// on its bridge, and keeps to its order: link down, rules, link up.
package hook

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strconv"
	"strings"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/hypervisors/xenserver"
	"github.com/ringwall/ringwall/hypervisors/xenserver/xapi"
)

// Programmer has a VM's policy put in force.
type Programmer interface {
	// Program returns when every NIC of the VM that is plugged in is held to its
	// policy, or says why not; false when nobody has said anything about it: its
	// ports are closed.
	Program(ctx context.Context, in core.Instance) (enforced bool, err error)
}

// Links are the host's interfaces.
type Links interface {
	Exists(name string) bool
	SetUp(name string, up bool) error
}

// Kernel is the Links of the calling thread's network namespace.
type Kernel struct{}

// Exists implements Links.
func (Kernel) Exists(name string) bool {
	_, err := netlink.LinkByName(name)
	return err == nil
}

// SetUp implements Links.
func (Kernel) SetUp(name string, up bool) error {
	l, err := netlink.LinkByName(name)
	if err != nil {
		return fmt.Errorf("interface %s: %w", name, err)
	}
	if up {
		err = netlink.LinkSetUp(l)
	} else {
		err = netlink.LinkSetDown(l)
	}
	if err != nil {
		return fmt.Errorf("interface %s: set up to %v: %w", name, up, err)
	}
	return nil
}

// timeout bounds the wait of a VM for its policy.
const timeout = 10 * time.Second

// Hook is one run of the hook.
type Hook struct {
	Programmer Programmer
	Settings   core.Settings // of the adapter: how XAPI is reached
	Links      Links
	Log        *slog.Logger
}

// Call is what xenopsd asks.
type Call struct {
	Device string // vif5.0 or tap5.0
	Domid  int64
	VIF    uint64
	VM     string // UUID; empty from a xenopsd of before 6.1
	Clear  bool   // the VIF goes, or XAPI lets go of it
}

// ParseCall reads BACKEND INTERFACE UUID DEVID ACTION or, of older releases,
// TYPE DOMID DEVID ACTION. Action is clear or filter.
func ParseCall(args []string) (c Call, err error) {
	fault := func(reason string) (Call, error) {
		return Call{}, fmt.Errorf("setup-vif-rules %s: %s: %w", strings.Join(args, " "), reason, core.ErrInvalid)
	}
	switch len(args) {
	case 5:
		c.Device, c.VM = args[1], args[2]
	case 4:
		c.Device = args[0] + args[1] + "." + args[2]
	default:
		return fault("use BACKEND INTERFACE UUID DEVID clear|filter")
	}
	kind := strings.TrimPrefix(strings.TrimPrefix(c.Device, "vif"), "tap")
	domid, vif, ok := strings.Cut(kind, ".")
	var err1, err2 error
	c.Domid, err1 = strconv.ParseInt(domid, 10, 32)
	c.VIF, err2 = strconv.ParseUint(vif, 10, 16)
	switch {
	case !ok || err1 != nil || err2 != nil || len(kind) != len(c.Device)-3 || c.Domid < 0 || len(c.Device) > 15:
		return fault("not an interface of a VM")
	case args[len(args)-2] != vif:
		return fault("the interface is not that of the device")
	case args[len(args)-1] != "clear" && args[len(args)-1] != "filter":
		return fault("use clear or filter")
	}
	c.Clear = args[len(args)-1] == "clear"
	return c, nil
}

// Run answers xenopsd; the result is the exit status. A VIF whose policy cannot
// be put in force comes up closed, which the rules in the kernel see to: a link
// that stayed down nobody would ever set up.
func (h Hook) Run(ctx context.Context, args []string, errOut io.Writer) int {
	c, err := ParseCall(args)
	if err != nil {
		fmt.Fprintln(errOut, "ringwall:", err)
		return 1
	}
	if err := h.Links.SetUp(c.Device, false); err != nil {
		fmt.Fprintln(errOut, "ringwall:", err)
		return 1
	}
	if !c.Clear {
		h.program(ctx, c)
	}
	if err := h.Links.SetUp(c.Device, true); err != nil {
		fmt.Fprintln(errOut, "ringwall:", err)
		return 1
	}
	return 0
}

func (h Hook) program(ctx context.Context, c Call) {
	ctx, cancel := context.WithTimeoutCause(ctx, timeout, fmt.Errorf("no answer in %s", timeout))
	defer cancel()
	enforced, err := h.ask(ctx, c)
	switch {
	case err != nil:
		h.Log.Error("a VIF comes up closed, its policy could not be put in force", "device", c.Device, "vm", c.VM, "error", err)
	case !enforced:
		h.Log.Info("a VIF comes up closed, nobody has said what it may do", "device", c.Device, "vm", c.VM)
	default:
		h.Log.Info("a VIF comes up under its policy", "device", c.Device, "vm", c.VM)
	}
}

func (h Hook) ask(ctx context.Context, c Call) (enforced bool, err error) {
	a, err := xenserver.Driver().Open(ctx, h.Settings)
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, a.Close()) }()
	adapter, ok := a.(*xenserver.Adapter)
	if !ok {
		return false, fmt.Errorf("no adapter of XenServer: %w", core.ErrUnsupported)
	}
	in, err := adapter.AboutToRun(ctx, xenserver.Plug{VM: c.VM, Domid: xapi.Int(c.Domid), VIF: c.VIF, Exists: h.Links.Exists})
	if err != nil {
		return false, err
	}
	return h.Programmer.Program(ctx, in)
}
