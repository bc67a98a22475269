package nft

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// A connection stays in its namespace, whichever thread calls it.
func TestNamespaces(t *testing.T) {
	here := enterNamespace(t)
	fd, err := unix.Open(threadNetNS, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	id := TableID{IPv4, "here"}
	ctx := testContext(t)

	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			done <- err
			return
		}
		done <- func() error {
			other, err := Open(Config{})
			if err != nil {
				return err
			}
			defer other.Close()
			byFD, err := Open(Config{NetNS: fd})
			if err != nil {
				return err
			}
			defer byFD.Close()
			var tx Tx
			tx.AddTable(id)
			if _, err := byFD.Apply(ctx, &tx); err != nil {
				return err
			}
			for _, c := range []*Conn{here, byFD} {
				if table, err := c.Read(ctx, id); err != nil || table == nil {
					return fmt.Errorf("table %v, %v in its namespace", table, err)
				}
			}
			if table, err := other.Read(ctx, id); err != nil || table != nil {
				return fmt.Errorf("table %v, %v in the other namespace", table, err)
			}
			m, err := NewMonitor(here)
			if err != nil {
				return err
			}
			defer m.Close()
			var more Tx
			more.DeleteTable(id)
			if _, err := byFD.Apply(ctx, &more); err != nil {
				return err
			}
			event, err := m.Next(ctx)
			if err == nil && !cmp.Equal(event.Tables, []TableID{id}) {
				err = fmt.Errorf("event %+v", event)
			}
			return err
		}()
	}()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// A reader sees one state or the other, never a mix, while a writer toggles
// them; and both may be used from many goroutines.
func TestReadIsConsistent(t *testing.T) {
	c := enterNamespace(t)
	state := func(n int) State {
		table := NewTable(Bridge, "ringwall")
		set := table.AddSet(&Set{Name: "s", Key: Types(TypeMark), Elements: map[Key]Value{}})
		for i := range 10 {
			chain := table.AddChain(&Chain{Name: fmt.Sprintf("c%d", i)})
			for range n + 1 {
				chain.Rules = append(chain.Rules, rule(&expr.Counter{}))
			}
			set.Add(Value{}, Mark(uint32(10*n+i)))
		}
		return State{}.Add(table)
	}
	states := []State{state(0), state(1)}
	id := TableID{Bridge, "ringwall"}
	ctx, cancel := context.WithCancel(testContext(t))
	apply(t, c, Diff(nil, states[0]))

	var writer, readers sync.WaitGroup
	writer.Go(func() {
		for i := 0; ctx.Err() == nil; i++ {
			if _, err := c.Apply(context.Background(), Diff(states[i%2], states[(i+1)%2])); err != nil {
				t.Error(err)
				return
			}
		}
	})
	for range 3 {
		readers.Go(func() {
			for range 20 {
				table, err := c.Read(testContext(t), id)
				if err != nil {
					t.Error(err)
					return
				}
				have := State{id: table}
				if len(Compare(states[0], have)) > 0 && len(Compare(states[1], have)) > 0 {
					t.Errorf("read a mix:\n%s", table)
					return
				}
			}
		})
	}
	readers.Wait()
	cancel()
	writer.Wait()
}

// A reader that never gets a quiet moment says so when its time is up.
func TestReadGivesUp(t *testing.T) {
	c := enterNamespace(t)
	ctx, cancel := context.WithCancel(testContext(t))
	defer cancel()
	attempts := 0
	err := c.consistent(ctx, func(*sock) error {
		var tx Tx
		tx.AddTable(TableID{IPv4, fmt.Sprintf("t%d", attempts)})
		apply(t, c, &tx)
		if attempts++; attempts == 3 {
			cancel()
		}
		return nil
	})
	if !errors.Is(err, ErrBusy) || !errors.Is(err, context.Canceled) {
		t.Errorf("error %v, want ErrBusy", err)
	}
}

func TestCancelledContextSendsNothing(t *testing.T) {
	c := enterNamespace(t)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := c.Apply(ctx, Diff(nil, State{}.Add(small()))); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
	if read(t, c, TableID{Bridge, "ringwall"}) != nil {
		t.Error("table made")
	}
}

// After a lost answer the generation tells what it can.
func TestOutcome(t *testing.T) {
	c := enterNamespace(t)
	gen := apply(t, c, Diff(nil, State{}.Add(small())))
	cause := unix.ENOBUFS
	if err := c.outcome(testContext(t), gen, cause); errors.Is(err, ErrUnknown) || !errors.Is(err, cause) {
		t.Errorf("same generation: %v, want a plain failure", err)
	}
	if err := c.outcome(testContext(t), gen-1, cause); !errors.Is(err, ErrUnknown) || !errors.Is(err, cause) {
		t.Errorf("generation moved: %v, want ErrUnknown", err)
	}
}

// A connection whose socket broke gets another.
func TestWriterIsReplaced(t *testing.T) {
	c := enterNamespace(t)
	if err := c.write.Close(); err != nil {
		t.Fatal(err)
	}
	var tx Tx
	tx.AddTable(TableID{IPv4, "a"})
	if _, err := c.Apply(testContext(t), &tx); err == nil {
		t.Fatal("a closed socket sent something")
	}
	var again Tx
	again.AddTable(TableID{IPv4, "a"})
	apply(t, c, &again)
}
