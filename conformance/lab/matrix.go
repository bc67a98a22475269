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
	// Patience is how long an attempt that should get through is repeated.
	// Default 3 s.
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
	return &Matrix{Wait: 300 * time.Millisecond, Patience: 3 * time.Second, nodes: nodes, expected: map[pair]Expectation{}}
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
	var g errgroup.Group
	// A connection attempt holds a thread; blocked ones hold it for all of Wait.
	g.SetLimit(256)
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
	byName := map[string]Node{}
	for _, n := range m.nodes {
		byName[n.Name()] = n
	}
	for i := range report.Cells {
		c := &report.Cells[i]
		g.Go(func() error { return m.ask(ctx, c, byName[c.From], byName[c.To]) })
	}
	if err := g.Wait(); err != nil {
		return nil, fmt.Errorf("matrix: %w", err)
	}
	return report, nil
}

func (m *Matrix) ask(ctx context.Context, c *Cell, from, to Node) error {
	for deadline := time.Now().Add(m.Patience); ; {
		err := Connect(ctx, from, to.Addr(c.Service.Family), c.Service, ConnectOptions{Timeout: m.Wait})
		if e := ctx.Err(); e != nil {
			return e
		}
		c.Reachable, c.Reason = err == nil, ""
		if err != nil {
			c.Reason = err.Error()
		}
		if c.Reachable || c.Expected != Pass || time.Now().After(deadline) {
			return nil
		}
		time.Sleep(10 * time.Millisecond)
	}
}
