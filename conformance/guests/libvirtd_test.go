package guests_test

import (
	"context"
	"net/netip"
	"path/filepath"
	"testing"
	"time"

	"github.com/ringwall/ringwall/conformance/guests"
	"github.com/ringwall/ringwall/conformance/guests/probe"
	"github.com/ringwall/ringwall/conformance/lab"
	"github.com/ringwall/ringwall/core"
)

var (
	macA = core.MAC{0x52, 0x54, 0, 0, 0, 0xa}
	macB = core.MAC{0x52, 0x54, 0, 0, 0, 0xb}
)

func TestGuestsOnABridge(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	start := time.Now()
	lap := func(what string) { t.Logf("%6.2fs %s", time.Since(start).Seconds(), what) }
	image, err := guests.BuildImage(ctx, filepath.Join(t.TempDir(), "initrd"), guests.ImageOptions{})
	if err != nil {
		t.Fatal(err)
	}
	lap("image")
	h, err := lab.New(ctx, lab.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	if err := h.AddBridge(lab.BridgeSpec{Name: "br0"}); err != nil {
		t.Fatal(err)
	}
	d, err := guests.StartLibvirtd(ctx, guests.LibvirtdOptions{Namespace: h.Namespace, Image: image})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	lap("libvirtd")
	a, err := d.StartGuest(ctx, guests.Spec{Name: "a", NICs: []guests.NIC{{MAC: macA, Bridge: "br0"}},
		Boot: probe.Config{Links: []probe.Link{{NIC: macA, Addresses: []netip.Prefix{netip.MustParsePrefix("10.0.0.1/24")}}}}})
	if err != nil {
		t.Fatal(err)
	}
	lap("a")
	b, err := d.StartGuest(ctx, guests.Spec{Name: "b", NICs: []guests.NIC{{MAC: macB, Bridge: "br0"}}})
	if err != nil {
		t.Fatal(err)
	}
	lap("b")
	if err := b.Probe().Configure(ctx, probe.Link{NIC: macB, Addresses: []netip.Prefix{netip.MustParsePrefix("10.0.0.2/24")}}); err != nil {
		t.Fatal(err)
	}
	ok, err := b.Probe().Reaches(ctx, netip.MustParseAddr("10.0.0.1"))
	if err != nil || !ok {
		t.Fatalf("b reaches a: %v, %v", ok, err)
	}
	lap("ping")
	_ = a
}
