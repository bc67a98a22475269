package iptables

import (
	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/drivers/iptables/internal/xtables"
)

// tally is the label of a rule: what its counters count.
type tally struct {
	nic       core.NICKey
	device    string // of a port without a NIC
	direction core.Direction
	reason    core.Reason
}

// side denies and counts for one NIC, or one port, in one direction.
type side struct {
	nic       core.NICKey
	device    string
	direction core.Direction
	countOnly bool
}

func (d side) tally(r core.Reason) tally { return tally{d.nic, d.device, d.direction, r} }

// deny drops in a chain of iptables. A cluster that only counts passes the packet
// on to who asked: the rules of the host itself still get to see it.
func (d side) deny(r core.Reason, match ...options) xtables.Rule {
	then := drop()
	if d.countOnly {
		then = giveBack()
	}
	return rule(append(match, then)...).Labelled(d.tally(r))
}

// denyFrame drops in a chain of ebtables, or does what the chain does with
// frames that pass.
func (d side) denyFrame(r core.Reason, pass string, match ...options) xtables.Rule {
	then := drop()
	if d.countOnly {
		then = jump(pass)
	}
	return rule(append(match, then)...).Labelled(d.tally(r))
}

// count is a rule that passes what it counts.
func (d side) count(r core.Reason, parts ...options) xtables.Rule {
	return rule(parts...).Labelled(d.tally(r))
}
