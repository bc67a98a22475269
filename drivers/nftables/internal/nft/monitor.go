package nft

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"
	"syscall"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// Monitor reports changes of nftables that others make.
type Monitor struct {
	conn *Conn
	s    *sock
	rest []byte           // of the datagram being read
	seen map[TableID]bool // touched by the transaction being read
}

// Event is a change made by somebody else.
type Event struct {
	Generation uint32
	// PID and Process name who made it: the thread's id and name, as seen from
	// the first pid namespace. 0 and "" if unknown.
	PID     int
	Process string
	// Tables lists the tables it touched.
	Tables []TableID
	// Overrun means that events were lost: anything may have changed, and
	// Tables tells nothing.
	Overrun bool
}

// NewMonitor listens to the namespace of conn, whose own transactions it leaves
// out. Events are kept from its return on, so read the tables after that.
func NewMonitor(conn *Conn) (*Monitor, error) {
	s, err := conn.ns.socket()
	if err != nil {
		return nil, err
	}
	s.buf = make([]byte, monitorDatagram)
	m := &Monitor{conn: conn, s: s, seen: map[TableID]bool{}}
	if err := m.listen(); err != nil {
		s.Close()
		return nil, fmt.Errorf("listen to nftables: %w", err)
	}
	return m, nil
}

const (
	// monitorBuffer holds the announcements of a large foreign transaction.
	monitorBuffer = 8 << 20
	// monitorDatagram holds a datagram of announcements, several of 4-8 KiB or a
	// rule or element list as long as one message may be.
	monitorDatagram = 256 << 10
)

func (m *Monitor) listen() error {
	if err := m.s.c.SetReadBuffer(monitorBuffer); err != nil {
		return err
	}
	// Our own large transactions would overflow the buffer every time: the
	// kernel announces each rule before we can read the first. Should the
	// writing socket be another one by then, Next sorts its messages out.
	m.conn.portsMu.Lock()
	ports := slices.Collect(maps.Keys(m.conn.ports))
	m.conn.portsMu.Unlock()
	if err := m.s.c.SetBPF(withoutPorts(ports)); err != nil {
		return err
	}
	return m.s.c.SetsockoptInt(unix.SOL_NETLINK, unix.NETLINK_ADD_MEMBERSHIP, unix.NFNLGRP_NFTABLES)
}

// withoutPorts is a filter that drops datagrams whose first message was caused
// by one of the ports; all messages of a datagram are from one transaction.
func withoutPorts(ports []uint32) []bpf.RawInstruction {
	const portOffset = 12 // nlmsghdr.nlmsg_pid
	program := []bpf.Instruction{bpf.LoadAbsolute{Off: portOffset, Size: 4}}
	for _, port := range ports {
		// The filter loads in network order what netlink writes in the host's.
		swapped := binary.BigEndian.Uint32(binary.NativeEndian.AppendUint32(nil, port))
		program = append(program,
			bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: swapped, SkipTrue: 1},
			bpf.RetConstant{Val: 0})
	}
	program = append(program, bpf.RetConstant{Val: ^uint32(0)})
	raw, err := bpf.Assemble(program)
	if err != nil {
		panic(err) // a program of constants
	}
	return raw
}

// Next waits for the next foreign change. It ends with the context's error, or
// with the socket's when the monitor is closed.
func (m *Monitor) Next(ctx context.Context) (Event, error) {
	for {
		for len(m.rest) > 0 {
			msg, rest, err := nextMessage(m.rest)
			if err != nil {
				return m.resync(ctx)
			}
			m.rest = rest
			if event, ok := m.message(msg); ok {
				return event, nil
			}
		}
		b, err := m.s.receive(ctx)
		switch {
		case errors.Is(err, syscall.ENOBUFS), errors.Is(err, syscall.EMSGSIZE):
			return m.resync(ctx)
		case err != nil:
			return Event{}, fmt.Errorf("listen to nftables: %w", err)
		}
		m.rest = b
	}
}

// message takes a message in, and gives the event if it was a transaction's
// last: the kernel announces the new generation after all objects.
func (m *Monitor) message(msg nlMessage) (Event, bool) {
	kind := msg.kind()
	if kind < 0 || m.conn.ours(msg.port) {
		return Event{}, false
	}
	if kind != unix.NFT_MSG_NEWGEN {
		// Every kind of object names its table in attribute 1.
		if name := find(msg.body(), unix.NFTA_TABLE_NAME); name != nil {
			m.seen[TableID{msg.family(), attr{data: name}.str()}] = true
		}
		return Event{}, false
	}
	event := Event{Tables: slices.SortedFunc(maps.Keys(m.seen), TableID.compare)}
	clear(m.seen)
	for a := range attrs(msg.body()) {
		switch a.typ {
		case unix.NFTA_GEN_ID:
			event.Generation = a.u32()
		case unix.NFTA_GEN_PROC_PID:
			event.PID = int(a.u32())
		case unix.NFTA_GEN_PROC_NAME:
			event.Process = a.str()
		}
	}
	return event, true
}

// resync reports that events were lost. The kernel tells of a loss once, and
// drops events silently until the buffer has been emptied; so empty it, and only
// then look where nftables is.
func (m *Monitor) resync(ctx context.Context) (Event, error) {
	m.rest = nil
	clear(m.seen)
	for {
		b, err := m.s.receiveNow()
		switch {
		case errors.Is(err, syscall.ENOBUFS):
			continue
		case err != nil:
			return Event{}, fmt.Errorf("listen to nftables: %w", err)
		case ctx.Err() != nil:
			return Event{}, ctx.Err()
		case b == nil:
			gen, err := m.conn.Generation(ctx)
			if err != nil {
				return Event{}, err
			}
			return Event{Generation: gen, Overrun: true}, nil
		}
	}
}

// Close ends the monitor, and a Next that waits.
func (m *Monitor) Close() error { return m.s.Close() }
