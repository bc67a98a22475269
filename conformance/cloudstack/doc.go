// Package cloudstack tests Ringwall in the place of CloudStack's own scripts on
// a KVM host: the faults of the stock script, one by one, with packets; many
// calls at once; taking over from it and giving back to it under traffic; and
// how much faster it is than one program start for each rule.
//
// Incumbent is that other way: it makes the rules that CloudStack's host
// contract names, each with a process of its own.
package cloudstack
