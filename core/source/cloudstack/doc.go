// Package cloudstack makes desired state of what CloudStack tells its hosts:
// calls that name a VM and one of its NICs, and rules as one string.
//
// The server knows nothing of groups here. Each VM has one group of its own,
// cloudstack/<vm>, on all its NICs; what the server has to be told again (which
// rules a VM has, by number and signature) is kept beside it as a value of this
// source. A Source answers the calls from an engine; Derive and Gone are the
// engine's hooks that belong to it.
//
//	rules.go   the rule string
//	call.go    what can be asked
//	record.go  what is remembered of a VM, and how it becomes state
//	source.go  calls for a VM that comes or changes
//	leave.go   calls for one that goes
//	stock.go   taking over from the stock script, and giving back
//	logs.go    what the server asks on every ping
//	files.go   the files that the stock script keeps, for the day it comes back
package cloudstack
