// Package docs_test keeps the pages true as far as a program can: what they
// point at is there, and the rules about imports hold.
package docs_test

import (
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const (
	root   = ".."
	module = "github.com/ringwall/ringwall/"
)

var (
	fence     = regexp.MustCompile("(?ms)^ *```.*?^ *```[ \t]*$")
	code      = regexp.MustCompile("`([^`\n]+)`")
	link      = regexp.MustCompile(`\[[^\]\n]*\]\(([^)\s]+)\)`)
	heading   = regexp.MustCompile(`(?m)^#+ +(.*)$`)
	inFile    = regexp.MustCompile(`^[A-Za-z0-9_.-]+(/[A-Za-z0-9_.-]+)*/?$`)
	notInSlug = regexp.MustCompile(`[^a-z0-9 _-]`)
)

// pages are the README and everything below docs/, by path from the root.
func pages(t *testing.T) map[string]string {
	t.Helper()
	out := map[string]string{}
	add := func(name string) {
		b, err := os.ReadFile(filepath.Join(root, name))
		if err != nil {
			t.Fatal(err)
		}
		out[name] = string(b)
	}
	add("README.md")
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err == nil && filepath.Ext(path) == ".md" {
			add(filepath.Join("docs", path))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// topLevel are the folders of the repository: only what begins with one of
// them is taken for a path in it.
func topLevel(t *testing.T) []string {
	t.Helper()
	entries, err := os.ReadDir(root)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, e := range entries {
		if e.IsDir() && e.Name() != ".git" && e.Name() != "bin" {
			out = append(out, e.Name())
		}
	}
	return out
}

// paths lists what a page names in backticks that is a path in the repository.
func paths(text string, folders []string) (out []string) {
	for _, m := range code.FindAllStringSubmatch(fence.ReplaceAllString(text, ""), -1) {
		first, _, slash := strings.Cut(m[1], "/")
		if slash && slices.Contains(folders, first) && inFile.MatchString(m[1]) {
			out = append(out, m[1])
		}
	}
	return out
}

// member says whether path is there, or is a name in a package that is
// (core/policy.Evaluate).
func member(path string) bool {
	if _, err := os.Stat(filepath.Join(root, path)); err == nil {
		return true
	}
	dir, name := filepath.Split(path)
	pkg, symbol, ok := strings.Cut(name, ".")
	if !ok || symbol == "" || symbol[0] < 'A' || symbol[0] > 'Z' {
		return false
	}
	files, _ := filepath.Glob(filepath.Join(root, dir, pkg, "*.go"))
	declared := regexp.MustCompile(`(?m)^(func|type|var|const) ` + regexp.QuoteMeta(symbol) + `\b`)
	return slices.ContainsFunc(files, func(f string) bool {
		b, err := os.ReadFile(f)
		return err == nil && declared.Match(b)
	})
}

func TestPathsExist(t *testing.T) {
	folders := topLevel(t)
	named := 0
	for page, text := range pages(t) {
		for _, p := range paths(text, folders) {
			named++
			if !member(p) {
				t.Errorf("%s names %s, which is not in the repository", page, p)
			}
		}
	}
	if named < 100 {
		t.Errorf("only %d paths found in the pages; are they still written in backticks?", named)
	}
}

func TestLinksResolve(t *testing.T) {
	all := pages(t)
	seen := 0
	for page, text := range all {
		for _, m := range link.FindAllStringSubmatch(code.ReplaceAllString(fence.ReplaceAllString(text, ""), ""), -1) {
			to := m[1]
			if strings.Contains(to, "://") || strings.HasPrefix(to, "mailto:") {
				continue
			}
			seen++
			path, anchor, _ := strings.Cut(to, "#")
			target := page
			if path != "" {
				target = filepath.Join(filepath.Dir(page), path)
			}
			if _, err := os.Stat(filepath.Join(root, target)); err != nil {
				t.Errorf("%s links to %s: %s is not in the repository", page, to, target)
			} else if anchor != "" && !slices.Contains(anchors(all[target]), anchor) {
				t.Errorf("%s links to %s: %s has no such heading", page, to, target)
			}
		}
	}
	if seen < 20 {
		t.Errorf("only %d links found", seen)
	}
}

// anchors are the names that a page's headings get on the web.
func anchors(text string) (out []string) {
	for _, m := range heading.FindAllStringSubmatch(fence.ReplaceAllString(text, ""), -1) {
		out = append(out, strings.ReplaceAll(notInSlug.ReplaceAllString(strings.ToLower(m[1]), ""), " ", "-"))
	}
	return out
}

// The test sees what is wrong.
func TestWrongPathsAreSeen(t *testing.T) {
	text := "`core/nothing.go`, `core/model.go`, `/etc/ringwall`, `nic/in4`\n```\n`core/in-a-block.go`\n```\n`core/policy.Evaluate` `core/policy.Nonsense`"
	var missing []string
	for _, p := range paths(text, topLevel(t)) {
		if !member(p) {
			missing = append(missing, p)
		}
	}
	if want := []string{"core/nothing.go", "core/policy.Nonsense"}; !slices.Equal(missing, want) {
		t.Errorf("missing %v, want %v", missing, want)
	}
	if got := anchors("# A `b` c!\n```\n# not one\n```\n## D-e\n"); !slices.Equal(got, []string{"a-b-c", "d-e"}) {
		t.Errorf("anchors %v", got)
	}
}

// allowed says whether a package may import another, both without the module's
// name: "Who may import whom" in architecture.md.
func allowed(from, to string) bool {
	below := func(path, dir string) bool { return path == dir || strings.HasPrefix(path, dir+"/") }
	outer := below(to, "drivers") || below(to, "hypervisors")
	switch {
	case from == "core":
		return false
	case from == "core/policy":
		return to == "core"
	case below(from, "core"):
		return below(to, "core")
	case below(from, "drivers"), below(from, "hypervisors"):
		own, _, _ := strings.Cut(from, "/")
		return to == "core" || below(to, own)
	case below(from, "conformance"), below(from, "docs"):
		return true
	case below(to, "conformance"):
		return false
	case from == "cmd/ringwall" && below(to, "hypervisors/kvm"):
		return true // it installs libvirt's hook
	case from == "cmd/vmops" && below(to, "hypervisors/xenserver"):
		return true // it is xenopsd's hook, too
	case outer:
		return from == "cmd/internal/registry" || below(from, "plugins") || from == "cmd/ringwall-libvirt-hook"
	}
	return true
}

func TestImports(t *testing.T) {
	checked := 0
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || filepath.Ext(path) != ".go" || strings.HasSuffix(path, "_test.go") || strings.HasSuffix(filepath.Dir(path), "test") {
			return err
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		from, err := filepath.Rel(root, filepath.Dir(path))
		if err != nil {
			return err
		}
		for _, i := range file.Imports {
			name, _ := strconv.Unquote(i.Path.Value)
			if to, ours := strings.CutPrefix(name, module); ours {
				checked++
				if !allowed(from, to) {
					t.Errorf("%s imports %s", path, to)
				}
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if checked < 100 {
		t.Errorf("only %d imports checked", checked)
	}
	for from, to := range map[string]string{"core": "core/policy", "core/policy": "core/engine", "core/engine": "drivers/nftables",
		"drivers/nftables": "hypervisors/kvm", "hypervisors/kvm": "core/engine", "cmd/ringwall": "drivers/nftables", "cmd/ringwalld": "conformance/lab"} {
		if allowed(from, to) {
			t.Errorf("%s may import %s", from, to)
		}
	}
}
