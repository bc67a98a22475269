package xapi

import (
	"crypto/sha256"
	"crypto/subtle"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/ringwall/ringwall/core"
)

// LocalSocket is where XAPI listens in dom0. Root needs no password there.
const LocalSocket = "/var/lib/xcp/xapi"

// Secret is text that is never shown.
type Secret string

func (Secret) String() string       { return "(secret)" }
func (Secret) GoString() string     { return "(secret)" }
func (Secret) LogValue() slog.Value { return slog.StringValue("(secret)") }

// Options of a Client: either Socket, or Hosts with User and Password.
type Options struct {
	// Socket is the path of a unix socket.
	Socket string
	// Hosts of the pool, as name, name:port or https://name:port, tried in
	// order until one answers. One that is not the master names it.
	Hosts    []string
	User     string
	Password Secret
	// Pins are SHA-256 sums of certificates, in hex, with or without colons:
	// one for every host that may answer. With pins nothing else is verified.
	Pins []string
	// CAFile has the certificates to verify by; empty: the system's.
	CAFile string
	// Timeout of one call; event.from has it on top of its own. Zero: 30 s.
	Timeout time.Duration
}

// endpoint is a place to send calls to.
type endpoint struct {
	network, address string // for the dialer
	base             string // of URLs
}

func localEndpoint(socket string) endpoint {
	return endpoint{"unix", socket, "http://localhost"}
}

// httpsEndpoint reads name, name:port or https://name:port.
func httpsEndpoint(s string) (endpoint, error) {
	fault := func(reason string) (endpoint, error) {
		return endpoint{}, fmt.Errorf("host %q: %s; use name, name:port or https://name:port: %w", s, reason, core.ErrInvalid)
	}
	rest := s
	if scheme, after, ok := strings.Cut(s, "://"); ok {
		if scheme != "https" {
			return fault("only https is spoken")
		}
		rest = strings.TrimSuffix(after, "/")
	}
	if strings.Count(rest, ":") > 1 && !strings.HasPrefix(rest, "[") { // an IPv6 address
		rest = "[" + rest + "]"
	}
	u, err := url.Parse("https://" + rest)
	if err != nil || u.Hostname() == "" || u.User != nil || u.Path != "" || u.RawQuery != "" || u.Fragment != "" {
		return fault("not a host")
	}
	port := u.Port()
	if port == "" {
		port = "443"
	}
	return endpoint{"tcp", net.JoinHostPort(u.Hostname(), port), "https://" + u.Host}, nil
}

func (o Options) tls() (*tls.Config, error) {
	c := &tls.Config{MinVersion: tls.VersionTLS12}
	if len(o.Pins) > 0 {
		sums := make([][sha256.Size]byte, len(o.Pins))
		for i, p := range o.Pins {
			b, err := hex.DecodeString(strings.ReplaceAll(p, ":", ""))
			if err != nil || len(b) != sha256.Size {
				return nil, fmt.Errorf("pin %q is not a SHA-256 in hex; openssl x509 -noout -fingerprint -sha256 prints it: %w", p, core.ErrInvalid)
			}
			sums[i] = [sha256.Size]byte(b)
		}
		// The pin stands for the certificate itself: neither its name, its signer
		// nor its date says more. Hosts sign their own, for names nobody uses.
		c.InsecureSkipVerify = true
		c.VerifyConnection = func(s tls.ConnectionState) error { return verifyPin(s, sums) }
		return c, nil
	}
	if o.CAFile != "" {
		pem, err := os.ReadFile(o.CAFile)
		if err != nil {
			return nil, fmt.Errorf("certificates to verify hosts by: %w: %w", err, core.ErrInvalid)
		}
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("%s holds no certificate in PEM: %w", o.CAFile, core.ErrInvalid)
		}
	}
	return c, nil
}

func verifyPin(s tls.ConnectionState, sums [][sha256.Size]byte) error {
	if len(s.PeerCertificates) == 0 {
		return fmt.Errorf("the host shows no certificate")
	}
	got := sha256.Sum256(s.PeerCertificates[0].Raw)
	for _, want := range sums {
		if subtle.ConstantTimeCompare(got[:], want[:]) == 1 {
			return nil
		}
	}
	return fmt.Errorf("the certificate's SHA-256 is %x, which is not among the pins", got)
}

// MarshalText keeps it out of JSON and YAML.
func (Secret) MarshalText() ([]byte, error) { return []byte("(secret)"), nil }
