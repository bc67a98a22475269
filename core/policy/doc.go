// Package policy gives core's model its meaning.
//
// Compile turns groups and VMs into a Ruleset, Diff leads from one to the next.
// Evaluate says of one frame whether it passes, and why: it is docs/semantics.md
// in executable form, written for clarity. Tracker asks it about sequences of
// frames, with a model of connection tracking; EvaluateFlow about tracked
// flows; Explain tells people.
package policy
