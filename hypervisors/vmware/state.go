package vmware

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/vmware/govmomi/property"
	"github.com/vmware/govmomi/view"
	"github.com/vmware/govmomi/vim25"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"

	"github.com/ringwall/ringwall/core"
)

// entry is one line of the switch's private VLAN map.
type entry struct {
	Primary, Secondary int
	Type               Kind // isolated, community or promiscuous
}

func (e entry) String() string {
	return fmt.Sprintf("private vlan %d,%d %s", e.Primary, e.Secondary, e.Type)
}

func (e entry) compare(o entry) int {
	return cmp.Or(cmp.Compare(e.Primary, o.Primary), cmp.Compare(e.Secondary, o.Secondary), cmp.Compare(e.Type, o.Type))
}

// virtualSwitch is a distributed switch as it is.
type virtualSwitch struct {
	ref           types.ManagedObjectReference
	datacenter    types.ManagedObjectReference
	name, uuid    string
	version       string // of its configuration
	product       string // version of the switch itself
	macManagement bool
	entries       []entry // sorted
	groups        map[string]portGroup
}

// card is a VM's network adapter that is connected to the switch.
type card struct {
	vm     *machine
	device types.BaseVirtualEthernetCard
	key    int32 // of the device
	mac    core.MAC
	group  string // key of its port group
	home   string // the port group that it was in before it was ours; "" = none
}

func (c card) nic() core.NICKey { return core.NICKey{VM: c.vm.key, MAC: c.mac} }

// machine is a VM.
type machine struct {
	ref      types.ManagedObjectReference
	key      core.VMKey
	name     string
	running  bool
	template bool
	config   map[string]string // extraConfig, keys of ours
	fields   map[int32]string  // custom attributes
	cards    []types.BaseVirtualEthernetCard
}

// homeKey is where a VM keeps the port group that a card came from. A guest
// can write keys that begin with guestinfo. alone.
func homeKey(device int32) string { return "ringwall.home." + strconv.Itoa(int(device)) }

var machineProperties = []string{"name", "config.instanceUuid", "config.uuid", "config.template", "config.hardware.device",
	"config.extraConfig", "runtime.powerState", "customValue"}

// find looks the switch up by name.
func (p place) find(ctx context.Context, c *vim25.Client) (sw *virtualSwitch, err error) {
	var all []mo.DistributedVirtualSwitch
	err = retrieve(ctx, c, c.ServiceContent.RootFolder, "DistributedVirtualSwitch", []string{"name"}, &all)
	if err != nil {
		return nil, explain("listing distributed switches", err)
	}
	var names []string
	for _, dvs := range all {
		names = append(names, dvs.Name)
		if dvs.Name != p.Switch {
			continue
		}
		dc, err := datacenterOf(ctx, c, dvs.Self)
		if err != nil {
			return nil, err
		}
		if p.Datacenter != "" && dc.Name != p.Datacenter {
			continue
		}
		if sw != nil {
			return nil, fmt.Errorf("two distributed switches are called %s; set datacenter: %w", p.Switch, core.ErrNotReady)
		}
		sw = &virtualSwitch{ref: dvs.Self, name: dvs.Name, datacenter: dc.Self}
	}
	if sw == nil {
		if err := p.refuseStandard(ctx, c); err != nil {
			return nil, err
		}
		slices.Sort(names)
		return nil, fmt.Errorf("there is no distributed switch %s; there are %s: %w", p.Switch, cmp.Or(strings.Join(names, ", "), "none"), core.ErrNotReady)
	}
	return sw, nil
}

// refuseStandard finds a switch that no private VLANs can be had on.
func (p place) refuseStandard(ctx context.Context, c *vim25.Client) error {
	var hosts []mo.HostSystem
	if err := retrieve(ctx, c, c.ServiceContent.RootFolder, "HostSystem", []string{"name", "config.network.vswitch"}, &hosts); err != nil {
		return explain("listing hosts", err)
	}
	for _, h := range hosts {
		if h.Config == nil || h.Config.Network == nil {
			continue
		}
		for _, s := range h.Config.Network.Vswitch {
			if s.Name == p.Switch {
				return fmt.Errorf("%s is a standard vSwitch (of host %s), which has no private VLANs; name a distributed switch: %w", p.Switch, h.Name, core.ErrUnsupported)
			}
		}
	}
	return nil
}

func datacenterOf(ctx context.Context, c *vim25.Client, ref types.ManagedObjectReference) (mo.ManagedEntity, error) {
	path, err := mo.Ancestors(ctx, c, c.ServiceContent.PropertyCollector, ref)
	if err != nil {
		return mo.ManagedEntity{}, explain("finding the switch's datacenter", err)
	}
	for _, e := range path {
		if e.Self.Type == "Datacenter" {
			return e, nil
		}
	}
	return mo.ManagedEntity{}, fmt.Errorf("the switch is in no datacenter that the user may see: %w", core.ErrNotReady)
}

// read fills in what the switch is like now.
func (p place) read(ctx context.Context, c *vim25.Client) (*virtualSwitch, error) {
	sw, err := p.find(ctx, c)
	if err != nil {
		return nil, err
	}
	what := "reading switch " + sw.name
	collector := property.DefaultCollector(c)
	var dvs mo.DistributedVirtualSwitch
	if err := collector.RetrieveOne(ctx, sw.ref, []string{"uuid", "config", "capability", "portgroup", "summary.productInfo"}, &dvs); err != nil {
		return nil, explain(what, err)
	}
	config, ok := dvs.Config.(*types.VMwareDVSConfigInfo)
	if !ok {
		return nil, fmt.Errorf("%s is not VMware's own kind of distributed switch; private VLANs of others are not known here: %w", sw.name, core.ErrUnsupported)
	}
	sw.uuid, sw.version = dvs.Uuid, config.ConfigVersion
	if info := dvs.Summary.ProductInfo; info != nil {
		sw.product = info.Version
	}
	if f, ok := dvs.Capability.FeaturesSupported.(*types.VMwareDVSFeatureCapability); ok {
		sw.macManagement = f.MacLearningSupported != nil && *f.MacLearningSupported
	}
	for _, e := range config.PvlanConfig {
		sw.entries = append(sw.entries, entry{int(e.PrimaryVlanId), int(e.SecondaryVlanId), Kind(e.PvlanType)})
	}
	slices.SortFunc(sw.entries, entry.compare)
	sw.groups = map[string]portGroup{}
	if len(dvs.Portgroup) == 0 {
		return sw, nil
	}
	var groups []mo.DistributedVirtualPortgroup
	if err := collector.Retrieve(ctx, dvs.Portgroup, []string{"name", "key", "config"}, &groups); err != nil {
		return nil, explain(what, err)
	}
	for _, pg := range groups {
		sw.groups[pg.Key] = readPortGroup(pg)
	}
	return sw, nil
}

// machines reads the VMs of the switch's datacenter: no other can be on it.
func (sw *virtualSwitch) machines(ctx context.Context, c *vim25.Client) ([]*machine, error) {
	var vms []mo.VirtualMachine
	if err := retrieve(ctx, c, sw.datacenter, "VirtualMachine", machineProperties, &vms); err != nil {
		return nil, explain("listing VMs", err)
	}
	out := make([]*machine, 0, len(vms))
	for _, vm := range vms {
		if m := readMachine(vm); m != nil {
			out = append(out, m)
		}
	}
	slices.SortFunc(out, func(a, b *machine) int { return cmp.Or(cmp.Compare(a.name, b.name), cmp.Compare(a.key, b.key)) })
	return out, nil
}

// readMachine gives nil for a VM that is only just being made.
func readMachine(vm mo.VirtualMachine) *machine {
	if vm.Config == nil {
		return nil
	}
	m := &machine{ref: vm.Self, name: vm.Name, template: vm.Config.Template, config: map[string]string{}, fields: map[int32]string{},
		key:     core.VMKey(cmp.Or(vm.Config.InstanceUuid, vm.Config.Uuid)),
		running: vm.Runtime.PowerState != types.VirtualMachinePowerStatePoweredOff}
	for _, o := range vm.Config.ExtraConfig {
		v := o.GetOptionValue()
		if text, ok := v.Value.(string); ok && text != "" && strings.HasPrefix(strings.ToLower(v.Key), "ringwall.") {
			m.config[strings.ToLower(v.Key)] = text
		}
	}
	for _, f := range vm.CustomValue {
		if v, ok := f.(*types.CustomFieldStringValue); ok && v.Value != "" {
			m.fields[v.Key] = v.Value
		}
	}
	for _, d := range vm.Config.Hardware.Device {
		if c, ok := d.(types.BaseVirtualEthernetCard); ok {
			m.cards = append(m.cards, c)
		}
	}
	return m
}

// cards are the VM's cards on the switch.
func (sw *virtualSwitch) cards(m *machine) (out []card) {
	for _, d := range m.cards {
		e := d.GetVirtualEthernetCard()
		b, ok := e.Backing.(*types.VirtualEthernetCardDistributedVirtualPortBackingInfo)
		if !ok || b.Port.SwitchUuid != sw.uuid {
			continue
		}
		mac, err := core.ParseMAC(e.MacAddress)
		if err != nil {
			continue // powered off and never given one
		}
		out = append(out, card{vm: m, device: d, key: e.Key, mac: mac, group: b.Port.PortgroupKey, home: m.config[homeKey(e.Key)]})
	}
	return out
}

// primary is the primary VLAN that a port group's ports are in; 0 = none that
// can be told.
func (sw *virtualSwitch) primary(g portGroup) int {
	switch {
	case g.mark != nil:
		return g.mark.VLAN
	case g.PVLAN != 0:
		for _, e := range sw.entries {
			if e.Secondary == g.PVLAN {
				return e.Primary
			}
		}
	}
	return g.VLAN
}

// retrieve reads all objects of one kind below root.
func retrieve[T any](ctx context.Context, c *vim25.Client, root types.ManagedObjectReference, kind string, properties []string, to *[]T) error {
	v, err := view.NewManager(c).CreateContainerView(ctx, root, []string{kind}, true)
	if err != nil {
		return err
	}
	defer v.Destroy(context.WithoutCancel(ctx))
	return v.Retrieve(ctx, []string{kind}, properties, to)
}
