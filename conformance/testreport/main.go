// Command testreport reads `go test -json` from standard input and prints what
// a person wants to know: a line for each package, the output of what failed,
// each skip with its reason, and the sum. A skip whose reason is not listed in
// the file given by -skips is a failure.
package main

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"
	"time"
)

// event is a line of `go test -json` (go doc test2json).
type event struct {
	Action     string
	Package    string
	ImportPath string // of build output
	Test       string
	Output     string
	Elapsed    float64 // seconds
}

type report struct {
	allowed                 []string
	output                  map[string][]string // by package and test
	passed, failed, skipped int
	skips                   []string
	bad                     bool
}

func main() {
	skips := flag.String("skips", "", "file with the reasons for which a test may skip, a line each")
	flag.Parse()
	allowed, err := readSkips(*skips)
	if err != nil {
		fmt.Fprintln(os.Stderr, "testreport:", err)
		os.Exit(2)
	}
	r := &report{allowed: allowed, output: map[string][]string{}}
	r.read(os.Stdin)
	if !r.finish() {
		os.Exit(1)
	}
}

func readSkips(path string) ([]string, error) {
	if path == "" {
		return nil, nil
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var reasons []string
	for line := range strings.Lines(string(b)) {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "#") {
			reasons = append(reasons, line)
		}
	}
	return reasons, nil
}

func (r *report) read(in io.Reader) {
	lines := bufio.NewScanner(in)
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		var e event
		if json.Unmarshal(lines.Bytes(), &e) != nil {
			fmt.Println(lines.Text()) // not of the test runner: a broken build says so in plain text
			continue
		}
		r.take(e)
	}
}

func (r *report) take(e event) {
	key := e.Package + " " + e.Test
	switch e.Action {
	case "build-output":
		fmt.Print(e.Output)
	case "build-fail":
		r.bad = true
	case "output":
		r.output[key] = append(r.output[key], e.Output)
	case "pass", "fail", "skip":
		r.end(e, key)
		delete(r.output, key)
	}
}

func (r *report) end(e event, key string) {
	if e.Test == "" {
		if e.Action == "fail" {
			r.bad = true
			fmt.Print(strings.Join(r.output[key], ""))
		}
		if e.Action != "skip" { // skip: no test files
			took := time.Duration(e.Elapsed * float64(time.Second)).Round(10 * time.Millisecond)
			fmt.Printf("%-4s %8s  %s\n", e.Action, took, strings.TrimPrefix(e.Package, "github.com/ringwall/ringwall/"))
		}
		return
	}
	switch e.Action {
	case "pass":
		r.passed++
	case "fail":
		r.failed++
		fmt.Printf("--- FAIL %s\n%s", key, strings.Join(r.output[key], ""))
	case "skip":
		r.skipped++
		r.skip(key)
	}
}

func (r *report) skip(key string) {
	text := strings.Join(r.output[key], "")
	for _, reason := range r.allowed {
		if strings.Contains(text, reason) {
			r.skips = append(r.skips, fmt.Sprintf("skipped %s: %s", key, reason))
			return
		}
	}
	r.bad = true
	r.skips = append(r.skips, fmt.Sprintf("SKIPPED FOR NO LISTED REASON %s:\n%s", key, text))
}

func (r *report) finish() bool {
	for _, s := range r.skips {
		fmt.Println(s)
	}
	fmt.Printf("%d passed, %d failed, %d skipped\n", r.passed, r.failed, r.skipped)
	return !r.bad && r.failed == 0 && r.passed > 0
}
