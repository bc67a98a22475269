package xapi

import (
	"fmt"
	"slices"
	"strconv"
)

// HostSpec describes a host.
type HostSpec struct {
	Name    string
	Backend string // network_backend, when it is not the pool's
	Version string // product_version, when it is not the pool's
}

// Host is a member of a pool. The first one is its master.
type Host struct {
	Ref, UUID, Name string
	// Plugins by name: executables that host.call_plugin runs.
	Plugins map[string]string
	// Env is added to the environment of plugins.
	Env []string
	// Around, when set, runs every start of a plugin: to be on a thread inside
	// the network namespace that is the host's.
	Around func(start func() error) error

	pool *Pool
}

// AddHost makes a host.
func (p *Pool) AddHost(s HostSpec) *Host {
	p.mu.Lock()
	defer p.mu.Unlock()
	if s.Backend == "" {
		s.Backend = p.o.Backend
	}
	if s.Version == "" {
		s.Version = p.o.Version
	}
	h := &Host{UUID: newUUID(), Name: s.Name, Plugins: map[string]string{}, pool: p}
	h.Ref = p.add("host", Record{
		"uuid": h.UUID, "name_label": s.Name, "hostname": s.Name, "enabled": true, "address": "",
		"software_version": Record{"product_version": s.Version, "product_brand": "XCP-ng", "network_backend": s.Backend},
		"other_config":     Record{}, "resident_VMs": []any{},
	})
	p.hosts[h.Ref] = h
	if p.master == "" {
		p.master = h.Ref
		for ref := range p.tables["pool"] {
			p.set("pool", ref, "master", h.Ref)
		}
	}
	// Every host has its control domain among the VMs.
	p.add("vm", vmFields(Record{"uuid": newUUID(), "name_label": "Control domain on host: " + s.Name, "is_control_domain": true,
		"power_state": "Running", "resident_on": h.Ref, "domid": int64(0)}))
	return h
}

// SetBackend is xe-switch-network-backend.
func (h *Host) SetBackend(name string) {
	h.pool.mu.Lock()
	defer h.pool.mu.Unlock()
	v := plain(h.pool.field("host", h.Ref, "software_version")).(Record)
	v["network_backend"] = name
	h.pool.set("host", h.Ref, "software_version", v)
}

// NetworkSpec describes a network.
type NetworkSpec struct {
	Name, Bridge       string
	DefaultLockingMode string // unlocked
}

// AddNetwork makes a network, with a PIF on every host.
func (p *Pool) AddNetwork(s NetworkSpec) Ref {
	p.mu.Lock()
	defer p.mu.Unlock()
	if s.DefaultLockingMode == "" {
		s.DefaultLockingMode = "unlocked"
	}
	ref := p.add("network", Record{"uuid": newUUID(), "name_label": s.Name, "bridge": s.Bridge, "VIFs": []any{}, "PIFs": []any{},
		"default_locking_mode": s.DefaultLockingMode, "other_config": Record{}})
	var pifs []any
	for _, h := range p.sorted("host") {
		pifs = append(pifs, p.add("pif", Record{"uuid": newUUID(), "device": "eth" + strconv.Itoa(len(p.tables["network"])-1), "network": ref, "host": h,
			"VLAN": int64(-1), "physical": true, "currently_attached": true, "other_config": Record{}}))
	}
	p.set("network", ref, "PIFs", pifs)
	return ref
}

func (p *Pool) sorted(class string) (out []Ref) {
	for ref := range p.tables[class] {
		out = append(out, ref)
	}
	slices.Sort(out)
	return out
}

// VMSpec describes a VM.
type VMSpec struct {
	Name        string
	OtherConfig map[string]string
	VIFs        []VIFSpec
}

// VIFSpec describes a network card.
type VIFSpec struct {
	Network     Ref
	MAC         string
	LockingMode string // network_default
	IPv4Allowed []string
	IPv6Allowed []string
	OtherConfig map[string]string
}

// VM is a virtual machine.
type VM struct {
	Ref, UUID string

	pool *Pool
}

func vmFields(given Record) Record {
	f := Record{"is_a_template": false, "is_a_snapshot": false, "is_control_domain": false, "power_state": "Halted",
		"resident_on": Null, "scheduled_to_be_resident_on": Null, "domid": int64(-1), "VIFs": []any{}, "other_config": Record{}, "xenstore_data": Record{}}
	for k, v := range given {
		f[k] = v
	}
	return f
}

// AddVM makes a VM that is halted.
func (p *Pool) AddVM(s VMSpec) *VM {
	p.mu.Lock()
	defer p.mu.Unlock()
	vm := &VM{UUID: newUUID(), pool: p}
	vm.Ref = p.add("vm", vmFields(Record{"uuid": vm.UUID, "name_label": s.Name, "other_config": plain(s.OtherConfig)}))
	for _, v := range s.VIFs {
		p.addVIF(vm.Ref, v, false)
	}
	return vm
}

// AddTemplate makes a template, which is among the VMs as well.
func (p *Pool) AddTemplate(name string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.add("vm", vmFields(Record{"uuid": newUUID(), "name_label": name, "is_a_template": true}))
}

func (p *Pool) addVIF(vm Ref, s VIFSpec, attached bool) Ref {
	if s.LockingMode == "" {
		s.LockingMode = "network_default"
	}
	vifs, _ := p.field("vm", vm, "VIFs").([]any)
	used := map[string]bool{}
	for _, v := range vifs {
		used[p.field("vif", v.(Ref), "device").(string)] = true
	}
	device := 0
	for used[strconv.Itoa(device)] {
		device++
	}
	ref := p.add("vif", Record{"uuid": newUUID(), "device": strconv.Itoa(device), "network": s.Network, "VM": vm, "MAC": s.MAC, "MTU": int64(1500),
		"currently_attached": attached, "locking_mode": s.LockingMode, "ipv4_allowed": plain(s.IPv4Allowed), "ipv6_allowed": plain(s.IPv6Allowed),
		"other_config": plain(s.OtherConfig)})
	p.set("vm", vm, "VIFs", append(slices.Clone(vifs), ref))
	return ref
}

// Start boots the VM on a host. Its domain id is new.
func (vm *VM) Start(h *Host) {
	vm.pool.mu.Lock()
	defer vm.pool.mu.Unlock()
	vm.pool.run(vm.Ref, h.Ref)
}

func (p *Pool) run(vm, host Ref) {
	p.domids[host]++
	p.set("vm", vm, "domid", p.domids[host])
	p.set("vm", vm, "resident_on", host)
	p.attach(vm, true)
	p.set("vm", vm, "power_state", "Running")
	p.residents()
}

func (p *Pool) attach(vm Ref, on bool) {
	for _, v := range p.field("vm", vm, "VIFs").([]any) {
		p.set("vif", v.(Ref), "currently_attached", on)
	}
}

func (p *Pool) residents() {
	for _, h := range p.sorted("host") {
		var list []any
		for _, vm := range p.where("vm", "resident_on", h) {
			list = append(list, vm)
		}
		p.set("host", h, "resident_VMs", list)
	}
}

// Stop halts the VM.
func (vm *VM) Stop() {
	vm.pool.mu.Lock()
	defer vm.pool.mu.Unlock()
	vm.pool.halt(vm.Ref)
}

func (p *Pool) halt(vm Ref) {
	p.set("vm", vm, "power_state", "Halted")
	p.set("vm", vm, "domid", int64(-1))
	p.set("vm", vm, "resident_on", Null)
	p.attach(vm, false)
	p.residents()
}

// Reboot gives the VM a new domain on its host.
func (vm *VM) Reboot() {
	vm.pool.mu.Lock()
	defer vm.pool.mu.Unlock()
	vm.pool.run(vm.Ref, vm.pool.field("vm", vm.Ref, "resident_on").(Ref))
}

// Migrate moves the VM; it has a new domain on its new host.
func (vm *VM) Migrate(to *Host) {
	vm.pool.mu.Lock()
	defer vm.pool.mu.Unlock()
	p := vm.pool
	p.domids[to.Ref]++
	p.set("vm", vm.Ref, "domid", p.domids[to.Ref])
	p.set("vm", vm.Ref, "resident_on", to.Ref)
	p.residents()
}

// Destroy removes a halted VM.
func (vm *VM) Destroy() {
	vm.pool.mu.Lock()
	defer vm.pool.mu.Unlock()
	for _, v := range vm.pool.field("vm", vm.Ref, "VIFs").([]any) {
		vm.pool.remove("vif", v.(Ref))
	}
	vm.pool.remove("vm", vm.Ref)
}

// Plug gives a running VM another VIF.
func (vm *VM) Plug(s VIFSpec) Ref {
	vm.pool.mu.Lock()
	defer vm.pool.mu.Unlock()
	return vm.pool.addVIF(vm.Ref, s, true)
}

// Unplug takes a VIF out.
func (vm *VM) Unplug(vif Ref) {
	vm.pool.mu.Lock()
	defer vm.pool.mu.Unlock()
	vm.pool.set("vif", vif, "currently_attached", false)
}

// Domid is the VM's domain on its host, -1 when it does not run.
func (vm *VM) Domid() int64 {
	vm.pool.mu.Lock()
	defer vm.pool.mu.Unlock()
	return vm.pool.field("vm", vm.Ref, "domid").(int64)
}

// SetDomid gives a running VM another domain, such as one that was used before.
func (p *Pool) SetDomid(vm *VM, domid int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.set("vm", vm.Ref, "domid", domid)
}

// VIFs are the VM's cards, in order.
func (vm *VM) VIFs() (out []Ref) {
	vm.pool.mu.Lock()
	defer vm.pool.mu.Unlock()
	for _, v := range vm.pool.field("vm", vm.Ref, "VIFs").([]any) {
		out = append(out, v.(Ref))
	}
	return out
}

// Device names the host's end of the VM's n-th card.
func (vm *VM) Device(n int) string { return fmt.Sprintf("vif%d.%d", vm.Domid(), n) }

// Set changes a field of any object.
func (p *Pool) Set(class string, ref Ref, field string, value any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.set(class, ref, field, plain(value))
}

// Get reads a field of any object, as it goes over the wire.
func (p *Pool) Get(class string, ref Ref, field string) any {
	p.mu.Lock()
	defer p.mu.Unlock()
	return plain(p.field(class, ref, field))
}
