package vmware

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/types"

	"github.com/ringwall/ringwall/core"
)

func count(v *vcenter, method string) int {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.calls[method]
}

// A session that vCenter ends is made again, in the middle of anything.
func TestSessionEnds(t *testing.T) {
	v := newVCenter(t, 3)
	b := v.backend()
	mustSync(t, b, v.ruleset(webAndDB, "system", "web", "web"))
	expire := func() {
		t.Helper()
		_, err := methods.Logout(t.Context(), b.conn.direct, &types.Logout{This: *b.conn.client.ServiceContent.SessionManager})
		check(t, err)
	}
	logins := count(v, "Login")
	expire()
	mustSync(t, b, v.ruleset(webAndDB, "system", "db", "web"))
	if n := count(v, "Login") - logins; n != 1 {
		t.Errorf("%d logins, want 1", n)
	}
	expire()
	check(t, b.Close())
}

// A password that is refused is not tried again until it is another, and is in
// no log and no error.
func TestPassword(t *testing.T) {
	v := newVCenter(t, 1)
	var log bytes.Buffer
	old := slog.Default()
	slog.SetDefault(slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug})))
	defer slog.SetDefault(old)
	b := v.backend()
	file := b.settings.passwordFile
	v.on(&v.refuse, func(m string, _ types.ManagedObjectReference) types.BaseMethodFault {
		if m != "Login" {
			return nil
		}
		if p, _ := os.ReadFile(file); !strings.Contains(string(p), "right-pass") {
			return &types.InvalidLogin{}
		}
		return nil
	})
	r := v.ruleset(webAndDB, "web")
	before := count(v, "Login")
	for range 3 {
		err := b.Sync(t.Context(), r)
		if !errors.Is(err, core.ErrNotReady) || !strings.Contains(err.Error(), "has refused the password of ringwall@vsphere.local") || strings.Contains(err.Error(), "secret-pass") {
			t.Errorf("got %v", err)
		}
	}
	if n := count(v, "Login") - before; n != 1 {
		t.Errorf("a refused password was tried %d times", n)
	}
	check(t, os.WriteFile(file, []byte("right-pass"), 0o600))
	mustSync(t, b, r)
	if strings.Contains(log.String(), "-pass") {
		t.Errorf("the log has a password: %s", log.String())
	}
}

// Certificates are verified or pinned, never taken as they come.
func TestCertificate(t *testing.T) {
	v := newVCenter(t, 1)
	for name, change := range map[string]func(core.Settings){
		"verified": func(s core.Settings) { delete(s, "thumbprint") },
		"pinned":   func(s core.Settings) { s["thumbprint"] = strings.Repeat("ab", 32) },
	} {
		b := v.backend(change)
		before := count(v, "Login")
		if err := b.Sync(t.Context(), core.Ruleset{}); !errors.Is(err, core.ErrNotReady) {
			t.Errorf("%s: %v", name, err)
		}
		if count(v, "Login") != before {
			t.Errorf("%s: the password was sent", name)
		}
	}
}

func TestSettings(t *testing.T) {
	v := newVCenter(t, 1)
	for name, c := range map[string]struct {
		change func(core.Settings)
		want   string
	}{
		"http":         {func(s core.Settings) { s["url"] = "http://vc" }, "backend.settings.url: not the URL of a vCenter"},
		"password":     {func(s core.Settings) { s["url"] = "https://u:hidden@vc" }, "backend.settings.url: a user and password in it"},
		"no password":  {func(s core.Settings) { delete(s, "password_file") }, "give either password_file or password_env"},
		"sha1":         {func(s core.Settings) { s["thumbprint"] = strings.Repeat("ab", 20) }, "not a SHA-256 sum"},
		"no switch":    {func(s core.Settings) { delete(s, "switch") }, "backend.settings.switch: missing"},
		"typo":         {func(s core.Settings) { s["swich"] = "x" }, "backend.settings.swich: no such setting"},
		"networks":     {func(s core.Settings) { s["networks"] = []any{"100"} }, "use PRIMARY:FIRST-LAST"},
		"overlap":      {func(s core.Settings) { s["networks"] = []any{"100:2000-2009", "101:2005-2010"} }, "VLAN 2005 is network 100's too"},
		"inside":       {func(s core.Settings) { s["networks"] = []any{"100:99-101"} }, "the primary VLAN cannot be one of its secondaries"},
		"too big":      {func(s core.Settings) { s["networks"] = []any{"100:4000-4095"} }, "a VLAN id is 1 to 4094"},
		"anti_spoofin": {func(s core.Settings) { s["anti_spoofing"] = "on" }, "use refuse or mac-only"},
	} {
		s := v.settings(true)
		c.change(s)
		_, err := BackendDriver().Open(t.Context(), s)
		var f *core.FieldError
		if !errors.As(err, &f) || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "hidden") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// vCenter goes away at every point of a Sync in turn. Nobody meets anybody in
// between whom neither ruleset lets him meet, and another process finishes.
func TestLostAnywhere(t *testing.T) {
	v := newVCenter(t, 4)
	first := v.ruleset(webAndDB, "system", "web", "db", "-")
	second := v.ruleset(webAndDB, "-", "db", "web", "system")
	mustSync(t, v.backend(), second)
	after := v.reach()
	mustSync(t, v.backend(), first)
	before := v.reach()
	for n := 0; ; n++ {
		b := v.backend()
		left := n
		v.on(&v.refuse, func(m string, _ types.ManagedObjectReference) types.BaseMethodFault {
			if !slices.Contains(writingMethods, m) {
				return nil
			}
			if left--; left < 0 {
				return &types.HostCommunication{}
			}
			return nil
		})
		err := b.Sync(t.Context(), second)
		v.on(&v.refuse, nil)
		now := v.reach()
		for i := range now {
			if now[i] == '+' && before[i] != '+' && after[i] != '+' {
				t.Errorf("after %d writes: %s; before %s, after %s", n, now, before, after)
			}
		}
		if err == nil {
			if n < 5 {
				t.Errorf("only %d writes", n)
			}
			break
		}
		mustSync(t, v.backend(), first)
		if got := v.reach(); got != before {
			t.Fatalf("after %d writes and another Sync: %s, want %s", n, got, before)
		}
	}
}

func TestEvents(t *testing.T) {
	v := newVCenter(t, 2)
	b := v.backend()
	b.eventPause = time.Millisecond
	mustSync(t, b, v.ruleset(webAndDB, "web", "web"))
	ctx, cancel := context.WithCancel(t.Context())
	events, err := b.Events(ctx)
	check(t, err)
	// The collector answers some time after Events has returned.
	deadline := time.After(20 * time.Second)
	for i := 0; ; i++ {
		v.connect(v.vms()[1], v.portGroup([]string{"app-net", "ringwall-vlan100-closed"}[i%2]))
		select {
		case e := <-events:
			if e.Kind != core.EventPorts {
				t.Errorf("event %+v", e)
			}
		case <-time.After(200 * time.Millisecond):
			continue
		case <-deadline:
			t.Fatal("no event")
		}
		break
	}
	cancel()
	for range events { // until it is closed
	}
}

// Somebody changes the private VLAN map between our reading and our writing.
func TestConcurrentChange(t *testing.T) {
	v := newVCenter(t, 1)
	b := v.backend()
	mustSync(t, b, v.ruleset(webAndDB, "-")) // the first version is empty, and guards nothing
	bump := 1
	v.on(&v.fail, func(m string, this types.ManagedObjectReference) types.BaseMethodFault {
		if m == "ReconfigureDvs_Task" { // ahead of what was read, then as it was
			v.versions[this] += bump
			bump = -bump
		}
		return nil
	})
	r := v.ruleset(webAndDB, "web")
	if err := b.Sync(t.Context(), r); !errors.Is(err, core.ErrConflict) {
		t.Errorf("got %v", err)
	}
	mustSync(t, b, r)
}
