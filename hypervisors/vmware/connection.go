package vmware

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"net/url"
	"os"
	"reflect"
	"strings"
	"sync"
	"time"

	"github.com/vmware/govmomi/fault"
	"github.com/vmware/govmomi/session"
	"github.com/vmware/govmomi/vim25"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"

	"github.com/ringwall/ringwall/core"
)

// connection is a session with vCenter that is made when it is first needed,
// and again whenever vCenter has ended it.
type connection struct {
	endpoint
	// refusedFor is how long a password that vCenter has refused is not tried
	// again, so that no account is locked by us.
	refusedFor time.Duration

	mu      sync.Mutex
	client  *vim25.Client // nil until the first call
	direct  *soap.Client  // below client, logs in
	logins  uint64
	refused struct {
		password string
		at       time.Time
	}
}

func newConnection(e endpoint) *connection {
	// Longer than vCenter's default lock-out interval: five attempts in three minutes.
	return &connection{endpoint: e, refusedFor: 5 * time.Minute}
}

// connect gives a client that logs in by itself. It fails with ErrNotReady
// while vCenter cannot be reached.
func (c *connection) connect(ctx context.Context) (*vim25.Client, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.client != nil {
		return c.client, nil
	}
	direct, err := c.transport()
	if err != nil {
		return nil, err
	}
	client, err := vim25.NewClient(ctx, direct)
	if err != nil {
		return nil, explain("connecting to "+c.url.Host, err)
	}
	if !client.IsVC() {
		return nil, fmt.Errorf("%s is a lone ESXi host; a distributed switch belongs to a vCenter: %w", c.url.Host, core.ErrUnsupported)
	}
	c.direct = direct
	if err := c.login(ctx, client); err != nil {
		return nil, err
	}
	client.RoundTripper = (*relogin)(c)
	c.client = client
	return client, nil
}

func (c *connection) transport() (*soap.Client, error) {
	direct := soap.NewClient(c.url, false)
	direct.UserAgent = "ringwall"
	if c.caFile != "" {
		if err := direct.SetRootCAs(c.caFile); err != nil {
			return nil, fmt.Errorf("ca_file: %w: %w", err, core.ErrNotReady)
		}
	}
	if c.pin != nil {
		// soap's own thumbprint counts only where verification fails, and takes
		// SHA-1. The pin decides alone.
		direct.DefaultTransport().TLSClientConfig = &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: true, VerifyConnection: c.checkPin}
	}
	return direct, nil
}

func (c *connection) checkPin(s tls.ConnectionState) error {
	if len(s.PeerCertificates) == 0 {
		return fmt.Errorf("vCenter shows no certificate: %w", core.ErrNotReady)
	}
	if sum := sha256.Sum256(s.PeerCertificates[0].Raw); !bytes.Equal(sum[:], c.pin) {
		return fmt.Errorf("vCenter's certificate has the thumbprint %s, not the pinned one; if it was renewed, set thumbprint: %w", hex.EncodeToString(sum[:]), core.ErrNotReady)
	}
	return nil
}

// password is read each time, so that it can be changed while we run.
func (c *connection) password() (string, error) {
	if c.passwordEnv != "" {
		if p := os.Getenv(c.passwordEnv); p != "" {
			return p, nil
		}
		return "", fmt.Errorf("password_env: %s is not set here (a plugin has an empty environment; use password_file): %w", c.passwordEnv, core.ErrNotReady)
	}
	b, err := os.ReadFile(c.passwordFile)
	if err != nil {
		return "", fmt.Errorf("password_file: %w: %w", err, core.ErrNotReady)
	}
	if p := strings.TrimRight(string(b), "\r\n"); p != "" {
		return p, nil
	}
	return "", fmt.Errorf("password_file: %s is empty: %w", c.passwordFile, core.ErrNotReady)
}

// login needs mu.
func (c *connection) login(ctx context.Context, client *vim25.Client) error {
	password, err := c.password()
	if err != nil {
		return err
	}
	refused := func(ago time.Duration) error {
		return fmt.Errorf("vCenter has refused the password of %s %s ago; it is tried again in %s, so as not to lock the account, or when it is another: %w",
			c.user, ago.Round(time.Second), (c.refusedFor - ago).Round(time.Second), core.ErrNotReady)
	}
	if ago := time.Since(c.refused.at); c.refused.password == password && ago < c.refusedFor {
		return refused(ago)
	}
	bare := *client
	bare.RoundTripper = c.direct
	err = session.NewManager(&bare).Login(ctx, url.UserPassword(c.user, password))
	var invalid *types.InvalidLogin
	if _, ok := fault.As(err, &invalid); err != nil && ok {
		c.refused.password, c.refused.at = password, time.Now()
		return refused(0)
	}
	if err != nil {
		return explain("logging in as "+c.user, err)
	}
	c.logins++
	return nil
}

// relogin is the connection as a round tripper: a call that vCenter turns away
// because the session has ended was not carried out, and is made again.
type relogin connection

func (r *relogin) RoundTrip(ctx context.Context, req, res soap.HasFault) error {
	c := (*connection)(r)
	c.mu.Lock()
	logins := c.logins
	c.mu.Unlock()
	err := c.direct.RoundTrip(ctx, req, res)
	var ended *types.NotAuthenticated
	if _, ok := fault.As(err, &ended); err == nil || !ok {
		return err
	}
	if failed := c.again(ctx, logins); failed != nil {
		return failed
	}
	reflect.ValueOf(res).Elem().SetZero() // decoding would leave the old fault in it
	return c.direct.RoundTrip(ctx, req, res)
}

// again logs in, unless another call has since the given number of logins.
func (c *connection) again(ctx context.Context, logins uint64) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.client == nil:
		return fmt.Errorf("the connection to vCenter was closed: %w", core.ErrNotReady)
	case c.logins != logins:
		return nil
	}
	return c.login(ctx, c.client)
}

// close ends the session; vCenter keeps only so many.
func (c *connection) close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.client == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	_, err := methods.Logout(ctx, c.direct, &types.Logout{This: *c.client.ServiceContent.SessionManager})
	c.direct.CloseIdleConnections()
	c.client = nil
	var ended *types.NotAuthenticated
	if _, ok := fault.As(err, &ended); err == nil || ok {
		return nil
	}
	if err = explain("logging out", err); errors.Is(err, core.ErrNotReady) {
		return nil // it will time out
	}
	return err
}
