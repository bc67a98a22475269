package main

import (
	"fmt"
	"net/netip"
	"strconv"

	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/core/source/cloudstack"
)

// reads names the options that mean something to each command. The agent sends
// more with some: they are not even read.
var reads = map[cloudstack.Command][]string{
	cloudstack.DefaultNetworkRules: {"vmname", "vmid", "vmip", "vmip6", "vmmac", "vif", "brname", "nicsecips", "isFirstNic", "check"},
	cloudstack.AddNetworkRules:     {"vmname", "vmid", "vmip", "sig", "seq", "rules"},
	cloudstack.SecondaryIP:         {"vmname", "vmmac", "nicsecips", "action"},
	cloudstack.DestroyRules:        {"vmname", "vmip", "vmmac"},
	cloudstack.DefaultSystemVM:     {"vmname", "localbrname"},
	cloudstack.VerifyRules:         {"vmname", "vmip", "vmip6", "vmmac", "nicsecips"},
}

// call reads the values that the command means something with.
func (a arguments) call() (cloudstack.Call, error) {
	c := cloudstack.Call{Command: cloudstack.Command(a.command)}
	if a.has("directrouted") {
		return c, fmt.Errorf("--directrouted: VMs on routed networks are not filtered here: %w", core.ErrUnsupported)
	}
	for _, name := range reads[c.Command] {
		value, given := a.values[name]
		if !given {
			continue
		}
		if err := set(&c, name, value); err != nil {
			return c, err
		}
	}
	for _, name := range map[cloudstack.Command][]string{cloudstack.AddNetworkRules: {"seq"}, cloudstack.SecondaryIP: {"action"}}[c.Command] {
		if a.values[name] == "" {
			return c, &core.FieldError{Path: "--" + name, Reason: "missing; " + a.command + " needs it"}
		}
	}
	return c, nil
}

// set reads one option into a call.
func set(c *cloudstack.Call, name, value string) (err error) {
	fail := func(reason string) error {
		return &core.FieldError{Path: "--" + name, Value: strconv.Quote(value), Reason: reason}
	}
	switch name {
	case "vmname":
		c.VM = value
	case "vmid":
		c.VMID = value
	case "vif":
		c.Device = value
	case "brname":
		c.Bridge = value
	case "localbrname":
		c.LocalBridge = value
	case "sig":
		c.Signature = value
	case "rules":
		c.Rules = value
	case "isFirstNic":
		c.FirstNIC = true
	case "check":
		c.Check = true
	case "vmip", "vmip6":
		if value == "" {
			return nil
		}
		a, err := netip.ParseAddr(value)
		if err != nil {
			return fail("not an IP address")
		}
		if name == "vmip" {
			c.IP = a
		} else {
			c.IP6 = a
		}
	case "vmmac":
		if c.MAC, err = core.ParseMAC(value); err != nil {
			return fail("not the MAC address of a NIC")
		}
	case "seq":
		if c.Sequence, err = strconv.ParseInt(value, 10, 64); err != nil {
			return fail("not a number")
		}
	case "nicsecips":
		c.Secondary, err = cloudstack.ParseSecondary(value)
	case "action":
		c.Remove, err = cloudstack.ParseAction(value)
	}
	return err
}
