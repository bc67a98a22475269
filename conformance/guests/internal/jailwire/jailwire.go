// Package jailwire is what the jail program and its client say to each other.
package jailwire

// Setup is the program's only argument.
type Setup struct {
	Binds  []Bind // mounted in order
	Remove string // folder to remove in the end
}

// Bind is a folder that covers another.
type Bind struct{ From, To string }

// Request has one of its fields set beside the ID.
type Request struct {
	ID     uint64
	Start  *Start  `json:",omitempty"`
	Signal *Signal `json:",omitempty"`
	Wait   int     `json:",omitempty"` // PID
}

// Start runs a program with its output appended to Log.
type Start struct {
	Argv []string
	Env  []string
	Log  string
}

// Signal is sent to a process, by its PID inside.
type Signal struct{ PID, Signal int }

// Answer to the request with the same ID. The first, with ID 0, says that the
// jail is ready.
type Answer struct {
	ID     uint64
	PID    int
	Status int // exit status, or 128 + signal
	Error  string
}
