package netns

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/ringwall/ringwall/core"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// scan is what there is at one moment.
type scan struct {
	vms []*namespace // by name
	// The rest is for doctor, and for what is not finished yet.
	empty   []string // names that match, but no namespace is mounted there
	aliases []string // second names of a VM
	strays  []stray
}

// namespace is a VM.
type namespace struct {
	name  string
	inode uint64 // tells it from a later one of the same name
	nics  []core.NIC
}

// stray is a port on a bridge that leads into a VM without being named by ports.
type stray struct{ vm, bridge, device string }

func (s *scan) instances() []core.Instance {
	out := make([]core.Instance, 0, len(s.vms))
	for _, vm := range s.vms {
		out = append(out, vm.instance())
	}
	return out
}

func (n *namespace) instance() core.Instance {
	return core.Instance{DomainID: strconv.FormatUint(n.inode, 10), VM: core.VM{Key: core.VMKey(n.name), Name: n.name, NICs: n.nics}}
}

// scan looks at everything anew. It holds no namespace open when it returns:
// that would keep a deleted one alive.
func (a *adapter) scan(ctx context.Context) (*scan, error) {
	host, err := netlink.NewHandleAt(netns.NsHandle(a.own.Fd()), unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open netlink in the bridges' namespace: %w", err)
	}
	defer host.Close()
	names, err := a.names()
	if err != nil {
		return nil, err
	}
	var own unix.Stat_t
	if err := unix.Fstat(int(a.own.Fd()), &own); err != nil {
		return nil, fmt.Errorf("the bridges' namespace: %w", err)
	}
	// Listed before the namespaces are asked for their ids here, since the
	// kernel gives out an id when it first has to name the other end of a link.
	veths, err := a.veths(host)
	if err != nil {
		return nil, err
	}
	s := &scan{}
	seen := map[uint64]bool{own.Ino: true}
	for _, name := range names {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if err := s.add(name, filepath.Join(a.settings.directory, name), host, veths, seen); err != nil {
			return nil, fmt.Errorf("namespace %s: %w", name, err)
		}
	}
	return s, nil
}

// names lists the files that may be VMs.
func (a *adapter) names() ([]string, error) {
	entries, err := os.ReadDir(a.settings.directory)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil // nobody has made a namespace yet
	}
	if err != nil {
		return nil, fmt.Errorf("list namespaces: %w", err)
	}
	var names []string
	for _, e := range entries {
		if core.MatchAny(a.settings.namespaces, e.Name()) {
			names = append(names, e.Name())
		}
	}
	return names, nil
}

// end is the near end of a veth.
type end struct {
	device string
	bridge string
	named  bool // ports names it
	peer   int  // index of the far end, in its namespace
}

// veths lists those that lead out of the namespace, by the id of the namespace
// that they lead into.
func (a *adapter) veths(host *netlink.Handle) (map[int][]end, error) {
	links, err := listLinks(host)
	if err != nil {
		return nil, fmt.Errorf("list links in the bridges' namespace: %w", err)
	}
	bridges := map[int]string{}
	for _, l := range links {
		if l.Type() == "bridge" {
			bridges[l.Attrs().Index] = l.Attrs().Name
		}
	}
	veths := map[int][]end{}
	for _, l := range links {
		at := l.Attrs()
		if l.Type() != "veth" || at.NetNsID < 0 {
			continue
		}
		veths[at.NetNsID] = append(veths[at.NetNsID], end{
			device: at.Name, bridge: bridges[at.MasterIndex], peer: at.ParentIndex,
			named: core.MatchAny(a.settings.ports, at.Name),
		})
	}
	return veths, nil
}

// listLinks starts again when links came or went meanwhile.
func listLinks(h *netlink.Handle) (links []netlink.Link, err error) {
	for range 32 {
		if links, err = h.LinkList(); !errors.Is(err, netlink.ErrDumpInterrupted) {
			return links, err
		}
	}
	return nil, err
}

// add looks at one name. What vanishes under its hands is not there.
func (s *scan) add(name, path string, host *netlink.Handle, veths map[int][]end, seen map[uint64]bool) error {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	var fsys unix.Statfs_t
	var st unix.Stat_t
	if err := unix.Fstatfs(int(f.Fd()), &fsys); err != nil {
		return err
	}
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return err
	}
	switch {
	case fsys.Type != unix.NSFS_MAGIC:
		s.empty = append(s.empty, name)
		return nil
	case seen[st.Ino]:
		s.aliases = append(s.aliases, name)
		return nil
	}
	seen[st.Ino] = true
	vm := &namespace{name: name, inode: st.Ino}
	id, err := host.GetNetNsIdByFd(int(f.Fd()))
	if err != nil {
		return fmt.Errorf("ask for its id: %w", err)
	}
	if ends := veths[id]; id >= 0 && len(ends) > 0 {
		if err := vm.lookInside(f, ends); err != nil {
			return err
		}
		for _, e := range ends {
			if !e.named && e.bridge != "" {
				s.strays = append(s.strays, stray{name, e.bridge, e.device})
			}
		}
	}
	s.vms = append(s.vms, vm)
	return nil
}

// lookInside reads the VM's MACs. A NIC is bound to where it is plugged in only
// once it is on a bridge.
func (n *namespace) lookInside(f *os.File, ends []end) error {
	h, err := netlink.NewHandleAt(netns.NsHandle(f.Fd()), unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("enter it: %w", err)
	}
	defer h.Close()
	for _, e := range ends {
		if !e.named {
			continue
		}
		far, err := h.LinkByIndex(e.peer)
		if errors.As(err, &netlink.LinkNotFoundError{}) || errors.Is(err, unix.ENODEV) {
			continue
		}
		if err != nil {
			return fmt.Errorf("the far end of %s: %w", e.device, err)
		}
		hw := far.Attrs().HardwareAddr
		if len(hw) != 6 {
			continue
		}
		nic := core.NIC{MAC: core.MAC(hw)}
		if e.bridge != "" {
			nic.Binding = core.Binding{Bridge: e.bridge, Devices: []string{e.device}}
		}
		n.nics = append(n.nics, nic)
	}
	slices.SortFunc(n.nics, func(a, b core.NIC) int {
		if c := bytes.Compare(a.MAC[:], b.MAC[:]); c != 0 {
			return c
		}
		return strings.Compare(strings.Join(a.Binding.Devices, ","), strings.Join(b.Binding.Devices, ","))
	})
	return nil
}

// same says whether a VM is still what it was.
func (n *namespace) same(o *namespace) bool {
	return n.inode == o.inode && slices.EqualFunc(n.nics, o.nics, func(a, b core.NIC) bool {
		return a.MAC == b.MAC && a.Binding.Bridge == b.Binding.Bridge && slices.Equal(a.Binding.Devices, b.Binding.Devices)
	})
}
