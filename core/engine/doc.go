// Package engine is Ringwall's only reconcile loop and only writer.
//
// One goroutine, the writer, takes changes of desired state and news from the
// hypervisor adapter. It stages and checks them, many at a time, commits them
// to core/state, and makes of desired state and inventory one view: who is
// here, and which ruleset every enforcement point must hold. It never waits
// for a point.
//
// Each point has a goroutine of its own that leads its backend from what it
// holds to the newest ruleset of the view; what came between is never seen.
// When a backend refuses an object, the rest goes on without it (substitute.go,
// bisect.go), beyond a restart too (keep.go).
// After what may have tightened, the tracked flows that no rule allows any
// more are revoked (sweep.go). Drift is looked for and repaired (drift.go).
//
// A call of Change answers when every point that it concerns has tried a
// ruleset at least as new as the change.
//
// What a reviewer should ask: can anything that is not in doubt be closed, or
// anything in doubt be opened, by a List that failed, an error without a name,
// an answer that was lost, a restart?
package engine
