package plugin

import "time"

// Phase is where a plugin is in its life.
type Phase string

const (
	PhaseNew        Phase = "new"        // not started yet
	PhaseRunning    Phase = "running"    // answers
	PhaseRestarting Phase = "restarting" // died, hung or could not be started; tried again
	PhaseStopped    Phase = "stopped"    // by the agent
)

// State is one row of `ringwall plugin list`.
type State struct {
	Name      string    `json:"name"`
	Path      string    `json:"path"`
	Backend   string    `json:"backend,omitempty"` // names of the drivers that it serves
	Adapter   string    `json:"adapter,omitempty"`
	Version   string    `json:"version,omitempty"` // as the driver says
	Protocol  int       `json:"protocol"`
	Phase     Phase     `json:"phase"`
	PID       int       `json:"pid,omitempty"`
	Since     time.Time `json:"since"` // of the phase
	Restarts  int       `json:"restarts"`
	LastError string    `json:"last_error,omitempty"` // why it was restarted or does not run
	SHA256    string    `json:"sha256,omitempty"`     // of the program that was last looked at
	Pinned    bool      `json:"pinned"`               // the sum is one of the config's
}
