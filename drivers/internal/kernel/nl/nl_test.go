package nl_test

import (
	"context"
	"encoding/binary"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/ringwall/ringwall/drivers/internal/kernel/kerneltest"
	"github.com/ringwall/ringwall/drivers/internal/kernel/nl"
	"golang.org/x/sys/unix"
	"pgregory.net/rapid"
)

// device is what is read of a link.
type device struct {
	Index int
	MTU   uint32
	Gone  bool
}

var devices = nl.Source[device]{
	Protocol: unix.NETLINK_ROUTE,
	Groups:   []int{unix.RTNLGRP_LINK},
	Dumps:    []nl.Request{{Type: unix.RTM_GETLINK, Body: make(nl.Buffer, unix.SizeofIfInfomsg)}},
	Parse: func(m nl.Message) (device, bool) {
		if m.Type != unix.RTM_NEWLINK && m.Type != unix.RTM_DELLINK || m.Data[0] != unix.AF_UNSPEC {
			return device{}, false
		}
		d := device{Index: int(binary.NativeEndian.Uint32(m.Data[4:])), Gone: m.Type == unix.RTM_DELLINK}
		for t, v := range nl.Attrs(m.Body(unix.SizeofIfInfomsg)) {
			if t == unix.IFLA_MTU {
				d.MTU = v.Uint32()
			}
		}
		return d, true
	},
}

// setMTU changes the loopback (index 1), which is an event each time.
func setMTU(index, mtu uint32) nl.Request {
	body := make(nl.Buffer, unix.SizeofIfInfomsg)
	binary.NativeEndian.PutUint32(body[4:], index)
	body.Uint32(unix.IFLA_MTU, mtu)
	return nl.Request{Type: unix.RTM_NEWLINK, Body: body}
}

func dial(t *testing.T, ns *kerneltest.Namespace, c nl.Config) *nl.Conn {
	t.Helper()
	h, err := nl.OpenNamespace(ns.FD())
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	conn, err := h.Dial(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// Refusals are told by their place, wherever it is in whichever chunk.
func TestBatchNamesTheRefused(t *testing.T) {
	ns := kerneltest.New(t)
	c := dial(t, ns, nl.Config{Protocol: unix.NETLINK_ROUTE})
	rapid.Check(t, func(r *rapid.T) {
		bad := rapid.SliceOfN(rapid.Bool(), 0, 2000).Draw(r, "bad")
		requests := make([]nl.Request, len(bad))
		want := map[int]bool{}
		for i := range requests {
			requests[i] = setMTU(1, uint32(10000+i))
			if bad[i] {
				requests[i] = setMTU(7777, 1500)
				want[i] = true
			}
		}
		refused, err := c.Batch(context.Background(), requests)
		if err != nil {
			r.Fatal(err)
		}
		got := map[int]bool{}
		for i, err := range refused {
			got[i] = true
			if !errors.Is(err, unix.ENODEV) {
				r.Fatalf("request %d: %v", i, err)
			}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			r.Fatal(diff)
		}
	})
}

func TestErrorHasTheKernelsWords(t *testing.T) {
	ns := kerneltest.New(t)
	c := dial(t, ns, nl.Config{Protocol: unix.NETLINK_ROUTE})
	err := c.Do(t.Context(), setMTU(1, 1<<31))
	var refusal *nl.Error
	if !errors.As(err, &refusal) || refusal.Errno != unix.EINVAL || refusal.Detail == "" || !strings.Contains(err.Error(), refusal.Detail) {
		t.Errorf("%#v", err)
	}
	if err := c.Do(t.Context(), setMTU(1, 1600)); err != nil {
		t.Errorf("the next request: %v", err)
	}
}

func TestReceiveEndsWithItsContext(t *testing.T) {
	ns := kerneltest.New(t)
	c := dial(t, ns, nl.Config{Protocol: unix.NETLINK_ROUTE})
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	for _, err := range c.Receive(ctx) {
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%v", err)
		}
	}
	if err := c.Do(t.Context(), setMTU(1, 1600)); err != nil {
		t.Errorf("the socket is spoilt: %v", err)
	}
}

// A feed whose reader was away too long says so and starts again.
func TestFeedRecovers(t *testing.T) {
	ns := kerneltest.New(t)
	feed, err := devices.Open(t.Context(), ns.FD())
	if err != nil {
		t.Fatal(err)
	}
	defer feed.Close()
	next := func() nl.Batch[device] {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		b, err := feed.Next(ctx)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	if b := next(); !b.Whole || len(b.Items) == 0 || b.Lost != nil {
		t.Fatalf("the first batch: %+v", b)
	}

	c := dial(t, ns, nl.Config{Protocol: unix.NETLINK_ROUTE})
	const changes = 20_000
	requests := make([]nl.Request, changes)
	for i := range requests {
		requests[i] = setMTU(1, uint32(10_000+i))
	}
	if refused, err := c.Batch(t.Context(), requests); err != nil || len(refused) > 0 {
		t.Fatal(refused, err)
	}

	seen, lost := 0, false
	for b := next(); !b.Whole; b = next() {
		lost = lost || errors.Is(b.Lost, unix.ENOBUFS)
		seen += len(b.Items)
	}
	if !lost || seen >= changes {
		t.Fatalf("%d of %d events seen, lost: %v: a test of nothing", seen, changes, lost)
	}
	// What follows is new, and in order.
	ns.Run("ip", "link", "set", "lo", "mtu", "5000")
	for b := next(); ; b = next() {
		if b.Whole || b.Lost != nil {
			t.Fatalf("again: %+v", b)
		}
		if b.Items[0].MTU == 5000 {
			return
		}
	}
}

func TestFeedFollows(t *testing.T) {
	ns := kerneltest.New(t)
	feed, err := devices.Open(t.Context(), ns.FD())
	if err != nil {
		t.Fatal(err)
	}
	defer feed.Close()
	if _, err := feed.Next(t.Context()); err != nil {
		t.Fatal(err)
	}
	ns.Run("ip", "link", "set", "lo", "mtu", "1600")
	b, err := feed.Next(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]device{{Index: 1, MTU: 1600}}, b.Items); diff != "" || b.Whole {
		t.Error(b, diff)
	}
}

// Attributes written are those read, whatever their lengths.
func TestAttributes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		type attr struct {
			Type  uint16
			Value []byte
		}
		want := rapid.SliceOf(rapid.Custom(func(t *rapid.T) attr {
			return attr{rapid.Uint16Max(0x3fff).Draw(t, "type"), rapid.SliceOfN(rapid.Byte(), 0, 40).Draw(t, "value")}
		})).Draw(t, "attributes")
		var b nl.Buffer
		end := b.Nest(7)
		for _, a := range want {
			b.Attr(a.Type, a.Value...)
		}
		end()
		b.BigUint32(8, 0x01020304)
		got := []attr{}
		for typ, v := range nl.Attrs(b) {
			switch typ {
			case 7:
				for typ, v := range nl.Attrs(v) {
					got = append(got, attr{typ, append([]byte{}, v...)})
				}
			case 8:
				if v.BigUint32() != 0x01020304 {
					t.Fatal(v)
				}
			default:
				t.Fatal(typ)
			}
		}
		if len(want) != len(got) || len(want) > 0 && cmp.Diff(want, got) != "" {
			t.Fatal(cmp.Diff(want, got))
		}
	})
}

// Damaged attributes end the walk; they never run past the end.
func TestDamagedAttributes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		b := rapid.SliceOf(rapid.Byte()).Draw(t, "bytes")
		size := 0
		for _, v := range nl.Attrs(b) {
			size += len(v) + 4
			_, _, _, _, _ = v.Uint8(), v.Uint16(), v.BigUint32(), v.Uint64(2), v.String()
		}
		if size > len(b) {
			t.Fatalf("%d bytes of %d", size, len(b))
		}
	})
}
