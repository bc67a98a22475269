// Package manifest reads and writes the file in which a user says which groups
// and VMs there should be: YAML, or JSON, which is YAML. What `get -o yaml`
// prints is a manifest again.
//
// Reading is strict, because a slip in a firewall's input must not pass: an
// unknown or repeated key, an empty value, a misplaced peer is an error that
// names the field, as in
//
//	vms[2].nics[0].addresses[1]: 10.0.0.300: not an IP address
package manifest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/ringwall/ringwall/core"
)

// MaxBytes is the longest manifest that Parse reads: room for some 30,000 VMs.
const MaxBytes = 16 << 20

// maxNodes bounds what aliases may blow a manifest up to.
const maxNodes = 2_000_000

// maxErrors is how many mistakes are told at once.
const maxErrors = 20

// Manifest is desired state as a user writes it.
type Manifest struct {
	Groups []core.Group
	VMs    []core.VM
}

// Parse reads one manifest. Mistakes are *core.FieldErrors, joined, one a line.
// CIDRs are masked, and a VM without a key has its name for one. Groups that
// the manifest refers to may be elsewhere: CheckGroups is for when that is
// known.
func Parse(data []byte) (Manifest, error) { return parse(data) }

func parse(data []byte, o ...core.ValidateOption) (Manifest, error) {
	if len(data) > MaxBytes {
		return Manifest{}, &core.FieldError{Path: "manifest", Reason: fmt.Sprintf("longer than %d MiB; split it", MaxBytes>>20)}
	}
	root, err := document(data)
	if err != nil {
		return Manifest{}, err
	}
	r := &reader{}
	m := r.manifest(root)
	if err := r.err(); err != nil {
		return Manifest{}, err
	}
	if err := m.validate(o...); err != nil {
		return Manifest{}, err
	}
	return m, nil
}

// document is the only YAML document in data.
func document(data []byte) (*yaml.Node, error) {
	var doc, more yaml.Node
	dec := yaml.NewDecoder(bytes.NewReader(data))
	switch err := dec.Decode(&doc); {
	case errors.Is(err, io.EOF):
		return nil, &core.FieldError{Path: "manifest", Reason: "empty; write groups or vms, or {} for none"}
	case err != nil:
		return nil, syntaxError(err)
	}
	switch err := dec.Decode(&more); {
	case err == nil:
		return nil, &core.FieldError{Path: fmt.Sprintf("line %d", more.Line), Reason: "a second document begins; put all groups and VMs in one"}
	case !errors.Is(err, io.EOF):
		return nil, syntaxError(err)
	}
	if doc.Kind != yaml.DocumentNode || len(doc.Content) != 1 {
		return nil, &core.FieldError{Path: "manifest", Reason: "not a YAML document"}
	}
	return doc.Content[0], nil
}

// syntaxError turns "yaml: line 3: found ..." into an error at line 3.
func syntaxError(err error) error {
	reason := strings.TrimPrefix(err.Error(), "yaml: ")
	path := "manifest"
	if line, rest, ok := strings.Cut(reason, ": "); ok && strings.HasPrefix(line, "line ") {
		path, reason = line, rest
	}
	return &core.FieldError{Path: path, Reason: "not YAML: " + strings.ReplaceAll(reason, "\n", " ")}
}

// Marshal writes m as YAML that Parse reads back.
func Marshal(m Manifest) ([]byte, error) {
	var b bytes.Buffer
	enc := yaml.NewEncoder(&b)
	enc.SetIndent(2)
	if err := enc.Encode(m); err != nil {
		return nil, err
	}
	if err := enc.Close(); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// MarshalYAML and MarshalJSON write the manifest's form wherever a Manifest
// stands inside something larger.
func (m Manifest) MarshalYAML() (any, error) { return m.form(), nil }

func (m Manifest) MarshalJSON() ([]byte, error) { return json.Marshal(m.form()) }

// UnmarshalJSON is Parse, but takes the groups of other sources, too: an agent
// shows them.
func (m *Manifest) UnmarshalJSON(b []byte) (err error) {
	*m, err = parse(b, core.AllowReserved)
	return err
}
