package config

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/knadh/koanf/parsers/yaml"

	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/core/internal/nearest"
)

// DefaultPath is read when nobody names a file; it may be missing.
const DefaultPath = "/etc/ringwall/config.yaml"

// maxBytes is the longest config file that is read.
const maxBytes = 4 << 20

// file is one config file, checked against the schema.
type file struct {
	name     string
	defaults map[string]any
	plugins  map[string]any
	clusters map[string]map[string]any
	hosts    map[string]map[string]any // less their cluster
	member   map[string]string         // host pattern -> cluster
}

// readFiles reads the config file and, after it, conf.d beside it in the order
// of names. A missing file is an error unless optional.
func readFiles(name string, optional bool) ([]file, error) {
	names := []string{name}
	for _, ext := range []string{"*.yaml", "*.yml"} {
		more, err := filepath.Glob(filepath.Join(filepath.Dir(name), "conf.d", ext))
		if err != nil {
			return nil, err
		}
		names = append(names, more...)
	}
	slices.Sort(names[1:])
	var files []file
	var errs []error
	for i, n := range names {
		data, err := readLimited(n)
		if errors.Is(err, fs.ErrNotExist) && optional && i == 0 {
			continue
		}
		if err != nil {
			errs = append(errs, err)
			continue
		}
		f, err := parseFile(n, data)
		files = append(files, f)
		errs = append(errs, err)
	}
	return files, errors.Join(errs...)
}

func readLimited(name string) ([]byte, error) {
	info, err := os.Stat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("config file %s: %w; name another with --config: %w", name, fs.ErrNotExist, core.ErrInvalid)
	}
	if err != nil {
		return nil, err
	}
	if info.Size() > maxBytes {
		return nil, fmt.Errorf("config file %s is longer than %d MiB: %w", name, maxBytes>>20, core.ErrInvalid)
	}
	return os.ReadFile(name)
}

// parseFile reads and checks one file. Every error begins with its name.
func parseFile(name string, data []byte) (file, error) {
	f := file{name: name, clusters: map[string]map[string]any{}, hosts: map[string]map[string]any{}, member: map[string]string{}}
	raw, err := yaml.Parser().Unmarshal(data)
	if err != nil {
		text := strings.Join(strings.Fields(strings.TrimPrefix(err.Error(), "yaml: ")), " ")
		return f, fmt.Errorf("%s: not YAML: %s: %w", name, text, core.ErrInvalid)
	}
	sections := []string{"defaults", "clusters", "hosts", "plugins"}
	var errs []error
	fail := func(path, value, reason string) {
		errs = append(errs, &core.FieldError{Path: path, Value: value, Reason: reason})
	}
	for _, section := range sortedKeys(raw) {
		if !slices.Contains(sections, section) {
			reason := nearest.UnknownKey(section, sections)
			if (&checker{schema: Schema()}).knows(section) {
				reason = "belongs under defaults, a cluster or a host"
			}
			fail(section, "", reason)
			continue
		}
		m, ok := raw[section].(map[string]any)
		if !ok {
			fail(section, show(raw[section]), "not a mapping")
			continue
		}
		switch section {
		case "defaults":
			f.defaults = m
			errs = append(errs, check(section, m))
		case "plugins":
			f.plugins = m
			errs = append(errs, check("", map[string]any{"plugins": m}))
		case "clusters":
			for _, cluster := range sortedKeys(m) {
				at := join(section, cluster)
				if sub, ok := m[cluster].(map[string]any); ok {
					f.clusters[cluster] = sub
					errs = append(errs, check(at, sub))
				} else {
					fail(at, show(m[cluster]), "not a mapping")
				}
			}
		case "hosts":
			for _, host := range sortedKeys(m) {
				at := join(section, host)
				sub, ok := m[host].(map[string]any)
				if !ok {
					fail(at, show(m[host]), "not a mapping")
					continue
				}
				if _, err := path.Match(host, ""); err != nil {
					fail(at, "", "not a pattern; * ? and [a-z] are understood")
				}
				errs = append(errs, check(at, sub, Key{Name: "cluster", Type: TypeString}))
				if c, ok := sub["cluster"].(string); ok {
					f.member[host] = c
				}
				delete(sub, "cluster")
				f.hosts[host] = sub
			}
		}
	}
	if err := errors.Join(errs...); err != nil {
		return f, inFile(name, err)
	}
	return f, nil
}

// knows says whether name begins a key of the schema.
func (c *checker) knows(name string) bool { return slices.Contains(c.below(""), name) }

// inFile puts the file's name before each line of a joined error.
func inFile(name string, err error) error {
	var joined interface{ Unwrap() []error }
	if !errors.As(err, &joined) {
		return fmt.Errorf("%s: %w", name, err)
	}
	var out []error
	for _, e := range joined.Unwrap() {
		out = append(out, inFile(name, e))
	}
	return errors.Join(out...)
}

// hostPatterns lists the host patterns of all files, sorted.
func hostPatterns(files []file) []string {
	all := map[string]bool{}
	for _, f := range files {
		for h := range f.hosts {
			all[h] = true
		}
	}
	return sortedKeys(all)
}

// clusterNames lists the clusters of all files, sorted.
func clusterNames(files []file) []string {
	all := map[string]bool{}
	for _, f := range files {
		for c := range f.clusters {
			all[c] = true
		}
	}
	return sortedKeys(all)
}

// matchHost finds the one entry that speaks for host: its full name, else its
// name up to the first dot, else the pattern with the most letters that are
// not wild. Two such patterns are an error: neither is the better one.
func matchHost(patterns []string, host string) (string, error) {
	short, _, _ := strings.Cut(host, ".")
	for _, name := range []string{host, short} {
		if slices.Contains(patterns, name) {
			return name, nil
		}
	}
	best, letters := "", -1
	for _, p := range patterns {
		full, _ := path.Match(p, host)
		abbr, _ := path.Match(p, short)
		if !full && !abbr {
			continue
		}
		switch n := literals(p); {
		case n > letters:
			best, letters = p, n
		case n == letters:
			return "", &core.FieldError{Path: "hosts", Value: host, Reason: fmt.Sprintf("matches both %q and %q equally well; add an entry with its full name", best, p)}
		}
	}
	return best, nil
}

func literals(pattern string) int {
	n, class := 0, false
	for _, c := range pattern {
		switch {
		case c == '[':
			class = true
		case c == ']':
			class = false
		case !class && c != '*' && c != '?' && c != '\\':
			n++
		}
	}
	return n
}
