package nft

import (
	"errors"
	"fmt"
	"syscall"
)

var (
	// ErrGeneration means that somebody changed nftables since the generation
	// the transaction was locked to. Nothing was changed; read and diff again.
	ErrGeneration = errors.New("nftables changed since it was read")
	// ErrUnknown means that the kernel's answer was lost: the transaction may
	// or may not be in force. Read back to know.
	ErrUnknown = errors.New("outcome of the nftables transaction unknown")
	// ErrBusy means that nftables changed under every attempt to read it.
	ErrBusy = errors.New("nftables keeps changing while it is read")
)

// Error is the kernel's refusal of one object of a transaction. The whole
// transaction is void then. errors.Is sees the errno.
type Error struct {
	// Object names what was refused: "bridge ringwall set src4 element vnet0".
	Object string
	// Op is what was asked: "add", "delete", "flush".
	Op     string
	Errno  syscall.Errno
	Detail string // the kernel's own words, if it had any
}

func (e *Error) Error() string {
	if e.Detail != "" {
		return fmt.Sprintf("%s %s: %v (%s)", e.Op, e.Object, e.Errno, e.Detail)
	}
	return fmt.Sprintf("%s %s: %v", e.Op, e.Object, e.Errno)
}

// Unwrap gives the errno.
func (e *Error) Unwrap() error { return e.Errno }

// Errors lists every refusal of a transaction in the order of its messages. The
// first is the cause, as a rule; what follows is often its consequence.
type Errors []*Error

func (e Errors) Error() string {
	if len(e) == 1 {
		return e[0].Error()
	}
	return fmt.Sprintf("%v (and %d more)", e[0], len(e)-1)
}

// Unwrap gives each error to errors.Is and errors.As.
func (e Errors) Unwrap() []error {
	list := make([]error, len(e))
	for i, err := range e {
		list[i] = err
	}
	return list
}
