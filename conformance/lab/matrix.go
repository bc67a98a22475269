package lab

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/ringwall/ringwall/core"
	"golang.org/x/sync/errgroup"
)

// Matrix says who should reach whom, over real sockets, and checks all of it at
// once.
type Matrix struct {
	// Wait is how long one attempt may take; a blocked one takes all of it.
	// Default 300 ms.
	Wait time.Duration
	// Patience is how long all those that should have got through, and did
	// not, are tried again. Default 5 s.
	Patience time.Duration

	nodes    []Node
	services []Service
	expected map[pair]Expectation
	err      error
}

type pair struct {
	from, to string
	service  Service
}

// Expectation of a cell.
type Expectation int

const (
	Unknown Expectation = iota // only show it
	Pass
	Block
)

// Everybody stands for all nodes in Expect.
const Everybody = "*"

// NewMatrix is a matrix of the nodes, whose names must differ, without any
// expectation.
func NewMatrix(nodes ...Node) *Matrix {
	return &Matrix{Wait: 300 * time.Millisecond, Patience: 5 * time.Second, nodes: nodes, expected: map[pair]Expectation{}}
}

// Expect states whether from reaches the service on to; a later statement takes
// the place of an earlier one. Nobody asks itself.
func (m *Matrix) Expect(from, to string, s Service, reachable bool) *Matrix {
	e := Block
	if reachable {
		e = Pass
	}
	return m.set(from, to, s, e)
}

// ExpectAll states the same for every pair.
func (m *Matrix) ExpectAll(s Service, reachable bool) *Matrix {
	return m.Expect(Everybody, Everybody, s, reachable)
}

// Show asks without expecting anything.
func (m *Matrix) Show(services ...Service) *Matrix {
	for _, s := range services {
		m.set(Everybody, Everybody, s, Unknown)
	}
	return m
}

func (m *Matrix) set(from, to string, s Service, e Expectation) *Matrix {
	if !slices.Contains(m.services, s) {
		m.services = append(m.services, s)
	}
	matched := false
	for _, f := range m.nodes {
		for _, t := range m.nodes {
			if f != t && (from == Everybody || from == f.Name()) && (to == Everybody || to == t.Name()) {
				m.expected[pair{f.Name(), t.Name(), s}] = e
				matched = true
			}
		}
	}
	if !matched && m.err == nil {
		m.err = fmt.Errorf("matrix: no pair %s -> %s among %s: %w", from, to, strings.Join(m.names(), ", "), core.ErrInvalid)
	}
	return m
}

func (m *Matrix) names() (names []string) {
	for _, n := range m.nodes {
		names = append(names, n.Name())
	}
	return names
}

// Run starts an echo server for each service on each node and asks all pairs.
// The servers' ports must be free.
func (m *Matrix) Run(ctx context.Context) (*MatrixReport, error) {
	if m.err != nil {
		return nil, m.err
	}
	report := &MatrixReport{Nodes: m.names()}
	for _, s := range m.services {
		for _, to := range m.nodes {
			if !to.Addr(s.Family).IsValid() {
				continue
			}
			echo, err := StartEcho(ctx, to, s)
			if err != nil {
				return nil, fmt.Errorf("matrix: %w", err)
			}
			defer echo.Close()
		}
		for _, from := range m.nodes {
			for _, to := range m.nodes {
				e, asked := m.expected[pair{from.Name(), to.Name(), s}]
				if !asked || !from.Addr(s.Family).IsValid() || !to.Addr(s.Family).IsValid() {
					continue
				}
				report.Cells = append(report.Cells, Cell{From: from.Name(), To: to.Name(), Service: s, Expected: e})
			}
		}
	}
	return report, m.askAll(ctx, report.Cells)
}

// Attempts wait more than they work: many at once in the first round, and few,
// with more time for each, in the rounds for those that a busy machine may have
// kept from getting through.
const (
	firstRound = 256
	lateRounds = 16
	lateWait   = time.Second
)

func (m *Matrix) askAll(ctx context.Context, cells []Cell) error {
	all := make([]*Cell, len(cells))
	for i := range cells {
		all[i] = &cells[i]
	}
	if err := m.round(ctx, all, firstRound, m.Wait, time.Time{}); err != nil {
		return err
	}
	for deadline := time.Now().Add(m.Patience); time.Now().Before(deadline); {
		cut := slices.DeleteFunc(slices.Clone(all), func(c *Cell) bool { return c.Mark() != "CUT" })
		if len(cut) == 0 {
			return nil
		}
		if err := m.round(ctx, cut, lateRounds, lateWait, deadline); err != nil {
			return err
		}
	}
	return nil
}

// round asks all cells once, those that come after the deadline excepted.
func (m *Matrix) round(ctx context.Context, cells []*Cell, limit int, wait time.Duration, deadline time.Time) error {
	byName := map[string]Node{}
	for _, n := range m.nodes {
		byName[n.Name()] = n
	}
	var g errgroup.Group
	g.SetLimit(limit)
	for _, c := range cells {
		g.Go(func() error {
			if !deadline.IsZero() && time.Now().After(deadline) {
				return nil
			}
			to := byName[c.To].Addr(c.Service.Family)
			err := Connect(ctx, byName[c.From], to, c.Service, ConnectOptions{Timeout: wait})
			c.Reachable, c.Reason = err == nil, ""
			if err != nil {
				c.Reason = err.Error()
			}
			return ctx.Err()
		})
	}
	if err := g.Wait(); err != nil {
		return fmt.Errorf("matrix: %w", err)
	}
	return nil
}
