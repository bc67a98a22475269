package core

import (
	"errors"
	"fmt"
)

// Sentinels that callers may test with errors.Is on both sides of a plugin
// boundary. Every error of a backend or an adapter wraps one of them, or is
// an unexpected failure of the system beneath.
var (
	// ErrUnsupported: the backend or the host cannot do what is asked. The
	// message names the feature and what would provide it.
	ErrUnsupported = errors.New("unsupported")
	// ErrInvalid: the input is wrong. Nothing was changed.
	ErrInvalid = errors.New("invalid")
	// ErrNotReady: a prerequisite is missing for now; trying again may help.
	ErrNotReady = errors.New("not ready")
	// ErrConflict: somebody else holds the object, or the state moved on.
	ErrConflict = errors.New("conflict")
	// ErrNotFound: the named object does not exist.
	ErrNotFound = errors.New("not found")
)

// FieldError says which field of an input is wrong, and why. Path is written
// the way a user would find it: vms[2].nics[0].addresses[1].
type FieldError struct {
	Path   string
	Value  string // as given; empty when a field is missing
	Reason string
}

func (e *FieldError) Error() string {
	if e.Value == "" {
		return fmt.Sprintf("%s: %s", e.Path, e.Reason)
	}
	return fmt.Sprintf("%s: %s: %s", e.Path, e.Value, e.Reason)
}

// Unwrap makes every FieldError an ErrInvalid.
func (e *FieldError) Unwrap() error { return ErrInvalid }

// ObjectError ties an error to the objects it concerns, so that the engine can
// go on without them (see SecurityGroupBackend.Apply).
type ObjectError struct {
	NICs   []NICKey // NICs that cannot be programmed as asked
	Groups []string // groups (their rules or their members) that were refused
	Err    error
}

func (e *ObjectError) Error() string {
	switch {
	case len(e.NICs) > 0:
		return fmt.Sprintf("nic %s: %v", e.NICs[0], e.Err)
	case len(e.Groups) > 0:
		return fmt.Sprintf("group %s: %v", e.Groups[0], e.Err)
	}
	return e.Err.Error()
}

func (e *ObjectError) Unwrap() error { return e.Err }
