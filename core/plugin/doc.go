// Package plugin runs backends and adapters as processes of their own.
//
// A vendor's program needs one line:
//
//	func main() { plugin.Serve(myBackend{}, nil) }
//
// The agent's side is Plugin: it starts a program, restarts it when it dies
// or hangs, and gives drivers that look like those in process. What a driver
// decides crosses the boundary intact: sentinels, field paths, objects. What
// only a boundary can bring becomes core.ErrNotReady (the plugin is gone or
// hangs; it is being restarted) or core.ErrConflict (it was restarted; Sync
// first).
//
// The host trusts a plugin to enforce, since nobody else could, but not to
// behave: see internal/process for what is started and how its output is
// bounded, and internal/wire for what is taken for an answer. Enforcement
// itself lives in the kernel or a remote store, so a plugin's death opens and
// closes nothing.
package plugin
