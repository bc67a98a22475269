package xapi

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"time"
)

// Server is a host's API endpoint.
type Server struct {
	Addr string // host:port
	// Fingerprint is the SHA-256 of its certificate, in hex; Certificate is the
	// certificate itself, as PEM.
	Fingerprint, Certificate string

	http *http.Server
	stop context.CancelFunc
}

// URL is https://host:port.
func (s *Server) URL() string { return "https://" + s.Addr }

// Close ends it at once, with all that is under way.
func (s *Server) Close() error {
	s.stop()
	return s.http.Close()
}

// Serve opens the host's HTTPS endpoint on a free port of the loopback, with a
// certificate that nobody has signed.
func (h *Host) Serve() (*Server, error) {
	cert, err := selfSigned()
	if err != nil {
		return nil, err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(cert.Certificate[0])
	s := h.serve(tls.NewListener(l, &tls.Config{Certificates: []tls.Certificate{cert}}), false)
	s.Fingerprint = hex.EncodeToString(sum[:])
	s.Certificate = string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Certificate[0]}))
	h.pool.Set("host", h.Ref, "address", s.Addr)
	return s, nil
}

// ServeLocal opens dom0's own unix socket, where root needs no password.
func (h *Host) ServeLocal(path string) (*Server, error) {
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, err
	}
	return h.serve(l, true), nil
}

func (h *Host) serve(l net.Listener, local bool) *Server {
	ctx, cancel := context.WithCancel(context.Background())
	mux := http.NewServeMux()
	mux.HandleFunc("POST /", func(w http.ResponseWriter, r *http.Request) { h.xmlrpc(w, r, local) })
	mux.HandleFunc("POST /json", func(w http.ResponseWriter, r *http.Request) { h.jsonrpc(w, r, local) })
	mux.HandleFunc("POST /jsonrpc", func(w http.ResponseWriter, r *http.Request) { h.jsonrpc(w, r, local) })
	s := &Server{Addr: l.Addr().String(), stop: cancel,
		http: &http.Server{Handler: mux, BaseContext: func(net.Listener) context.Context { return ctx }, ErrorLog: log.New(io.Discard, "", 0)}}
	go func() {
		if err := s.http.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			panic(err)
		}
	}()
	return s
}

const maxBody = 16 << 20

func (h *Host) xmlrpc(w http.ResponseWriter, r *http.Request, local bool) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err != nil {
		return
	}
	method, args, err := decodeXMLCall(body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	v, err := h.pool.call(r.Context(), h, local, method, args)
	w.Header().Set("Content-Type", "text/xml")
	w.Write(encodeXMLAnswer(v, err))
}

type jsonCall struct {
	Version string          `json:"jsonrpc"`
	Method  string          `json:"method"`
	Params  []any           `json:"params"`
	ID      json.RawMessage `json:"id"`
}

// jsonrpc answers in the version of the call: 2.0 has results and errors of its
// own, 1.0 wraps XAPI's Status and Value.
func (h *Host) jsonrpc(w http.ResponseWriter, r *http.Request, local bool) {
	var c jsonCall
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody)).Decode(&c); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	v, err := h.pool.call(r.Context(), h, local, c.Method, c.Params)
	answer := map[string]any{"id": c.ID}
	switch {
	case c.Version == "2.0" && err != nil:
		f := asFailure(err)
		answer["jsonrpc"], answer["error"] = "2.0", map[string]any{"code": 1, "message": f[0], "data": append([]string{}, f[1:]...)}
	case c.Version == "2.0":
		answer["jsonrpc"], answer["result"] = "2.0", plain(v)
	case err != nil:
		answer["error"], answer["result"] = nil, map[string]any{"Status": "Failure", "ErrorDescription": asFailure(err)}
	default:
		answer["error"], answer["result"] = nil, map[string]any{"Status": "Success", "Value": plain(v)}
	}
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(answer)
}

func selfSigned() (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	t := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "xenserver"}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(24 * time.Hour), IsCA: true, BasicConstraintsValid: true, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}
	der, err := x509.CreateCertificate(rand.Reader, t, t, &key.PublicKey, key)
	if err != nil {
		return tls.Certificate{}, err
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, nil
}
