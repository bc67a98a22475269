// Package core is Ringwall's model and its two contracts.
//
// The model: Group and VM are what a user asks for; Ruleset is what one
// enforcement point must enforce, in a normal form that every backend shares;
// Delta leads from one Ruleset to the next, element by element.
//
// The contracts: SecurityGroupBackend programs an enforcement point,
// HypervisorAdapter finds the VMs on it. Both are meant to be implemented by
// vendors, in process or behind core/plugin.
//
// core does no I/O. core/policy gives the model its meaning.
package core
