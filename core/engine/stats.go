package engine

// Stats counts what happened at a point since the engine started.
type Stats struct {
	Applies       uint64 `json:"applies"` // calls, failed ones too
	Syncs         uint64 `json:"syncs"`
	Failures      uint64 `json:"failures"` // of both
	Drifts        uint64 `json:"drifts"`   // differences found
	Repairs       uint64 `json:"repairs"`  // of drift, that succeeded
	FlowsRevoked  uint64 `json:"flows_revoked"`
	FlowsRestored uint64 `json:"flows_restored"`
}
