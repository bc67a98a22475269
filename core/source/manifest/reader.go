package manifest

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"

	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/core/internal/nearest"
)

// reader walks a YAML tree along the manifest's schema and collects what is
// wrong with it. The schema has no recursion, so its depth bounds the walk,
// and nothing outside the schema is descended into.
type reader struct {
	errs    []error
	visited int
}

// field is one key that a mapping may have.
type field struct {
	name     string
	required bool
	read     func(path string, n *yaml.Node)
}

func (r *reader) err() error { return errors.Join(r.errs...) }

func (r *reader) fail(path, value, reason string) {
	switch {
	case len(r.errs) < maxErrors:
		r.errs = append(r.errs, &core.FieldError{Path: path, Value: value, Reason: reason})
	case len(r.errs) == maxErrors:
		r.errs = append(r.errs, &core.FieldError{Path: "manifest", Reason: "more errors follow; mend these first"})
	}
}

// node follows an alias and counts what it brings.
func (r *reader) node(path string, n *yaml.Node) (*yaml.Node, bool) {
	for n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	r.visited++
	if r.visited == maxNodes {
		r.fail(path, "", "the manifest is too large once its aliases are written out")
	}
	if r.visited >= maxNodes {
		return nil, false
	}
	if n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null" {
		r.fail(orManifest(path), "", "empty value; leave the key out, or give it one")
		return nil, false
	}
	return n, true
}

// mapping reads a mapping whose keys are those of fields, each at most once.
func (r *reader) mapping(path string, n *yaml.Node, fields ...field) {
	n, ok := r.node(path, n)
	if !ok {
		return
	}
	if n.Kind != yaml.MappingNode {
		r.fail(orManifest(path), describe(n), "not a mapping; its keys are "+strings.Join(names(fields), ", "))
		return
	}
	seen := map[string]bool{}
	strays := false
	for i := 0; i+1 < len(n.Content); i += 2 {
		key := n.Content[i]
		if key.Kind != yaml.ScalarNode {
			r.fail(orManifest(path), describe(key), "a key must be a plain word")
			continue
		}
		at := join(path, key.Value)
		if seen[key.Value] {
			r.fail(at, "", "given twice")
			continue
		}
		seen[key.Value] = true
		f := find(fields, key.Value)
		if f == nil {
			strays = true
			r.fail(at, "", nearest.UnknownKey(clip(key.Value), names(fields)))
			continue
		}
		f.read(at, n.Content[i+1])
	}
	for _, f := range fields {
		// After an unknown key, what is missing is most likely what it meant.
		if f.required && !seen[f.name] && !strays {
			r.fail(join(path, f.name), "", "missing")
		}
	}
}

// list reads a list, one item at a time.
func (r *reader) list(path string, n *yaml.Node, item func(path string, n *yaml.Node)) {
	n, ok := r.node(path, n)
	if !ok {
		return
	}
	if n.Kind != yaml.SequenceNode {
		r.fail(path, describe(n), "not a list; write [a, b] or one item a line after -")
		return
	}
	for i, c := range n.Content {
		item(path+"["+strconv.Itoa(i)+"]", c)
	}
}

// scalar reads one value with parse, from its text as it stands in the file: a
// MAC or a version that happens to look like a number stays what was written.
func scalar[T any](r *reader, path string, n *yaml.Node, parse func(string) (T, error)) (v T, ok bool) {
	n, ok = r.node(path, n)
	if !ok {
		return v, false
	}
	if n.Kind != yaml.ScalarNode {
		r.fail(path, describe(n), "not a single value")
		return v, false
	}
	v, err := parse(n.Value)
	if err != nil {
		r.fail(path, clip(n.Value), reason(err))
		return v, false
	}
	return v, true
}

// scalars reads a list of single values.
func scalars[T any](r *reader, path string, n *yaml.Node, parse func(string) (T, error)) (out []T) {
	r.list(path, n, func(path string, n *yaml.Node) {
		if v, ok := scalar(r, path, n, parse); ok {
			out = append(out, v)
		}
	})
	return out
}

// into makes a field's read function that stores a single value.
func into[T any](r *reader, dst *T, parse func(string) (T, error)) func(string, *yaml.Node) {
	return func(path string, n *yaml.Node) {
		if v, ok := scalar(r, path, n, parse); ok {
			*dst = v
		}
	}
}

// reason is err's text without the sentinel that a FieldError implies anyway.
func reason(err error) string {
	return strings.TrimSuffix(err.Error(), ": "+core.ErrInvalid.Error())
}

func find(fields []field, name string) *field {
	for i := range fields {
		if fields[i].name == name {
			return &fields[i]
		}
	}
	return nil
}

func names(fields []field) []string {
	out := make([]string, len(fields))
	for i, f := range fields {
		out[i] = f.name
	}
	return out
}

func join(path, key string) string {
	if key = clip(key); path == "" {
		return key
	}
	return path + "." + key
}

func orManifest(path string) string {
	if path == "" {
		return "manifest"
	}
	return path
}

// describe shows a node that is not of the kind it should be.
func describe(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "a mapping"
	case yaml.SequenceNode:
		return "a list"
	}
	return clip(n.Value)
}

// clip keeps a value from the file short and on one line.
func clip(s string) string {
	const longest = 60
	cut := len(s) > longest
	if cut {
		s = s[:longest]
		for !utf8.ValidString(s) && len(s) > longest-utf8.UTFMax {
			s = s[:len(s)-1]
		}
	}
	if q := strconv.Quote(s); s == "" || q != `"`+s+`"` {
		s = q
	}
	if cut {
		return s + fmt.Sprintf("... (%d bytes or more)", longest)
	}
	return s
}
