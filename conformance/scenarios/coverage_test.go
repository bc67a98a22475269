package scenarios_test

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/ringwall/ringwall/conformance/scenarios"
	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/core/policy"
)

// statement is a row, a list item or a paragraph of docs/semantics.md. Its name
// is what Scenario.Rows call it: "sender 10", "Ports nic", "Flows 2" (the second
// item or paragraph under that heading), "sender note 1" (the first paragraph
// below that table).
type statement struct{ name, text string }

var (
	numberedRow = regexp.MustCompile(`^\| (\d+) \|`)
	namedRow    = regexp.MustCompile(`^\| ([a-z]+) \|`)
)

func statements(t *testing.T) []statement {
	t.Helper()
	page, err := os.ReadFile("../../docs/semantics.md")
	if err != nil {
		t.Fatal(err)
	}
	var out []statement
	heading, n, inParagraph := "", 0, false
	for line := range strings.Lines(string(page)) {
		line = strings.TrimRight(line, "\n")
		if title := strings.TrimLeft(line, "#"); title != line {
			heading, n, inParagraph = strings.TrimSpace(title), 0, false
			switch heading {
			case "Semantics":
				heading = "" // what the page is about
			case "At the sender's port":
				heading = "sender"
			case "At the receiver's port":
				heading = "receiver"
			}
			continue
		}
		row, name := numberedRow.FindStringSubmatch(line), namedRow.FindStringSubmatch(line)
		switch {
		case heading == "" || line == "":
			inParagraph = false
		case row != nil:
			out = append(out, statement{heading + " " + row[1], line})
		case name != nil && name[1] != "port":
			out = append(out, statement{heading + " " + name[1], line})
		case strings.HasPrefix(line, "|"):
		case inParagraph && !strings.HasPrefix(line, "- "):
			out[len(out)-1].text += " " + strings.TrimSpace(line)
		default:
			n++
			inParagraph = true
			label := fmt.Sprint(heading, " ", n)
			if heading == "sender" || heading == "receiver" {
				label = fmt.Sprint(heading, " note ", n)
			}
			out = append(out, statement{label, line})
		}
	}
	return out
}

// Every statement of the page has a scenario that claims to show it, and no
// scenario claims what is not there.
func TestEveryStatementHasAScenario(t *testing.T) {
	claimed := map[string][]string{}
	for _, s := range scenarios.All() {
		if len(s.Rows) == 0 {
			t.Errorf("%s does not say what it shows", s.Name)
		}
		for _, r := range s.Rows {
			claimed[r] = append(claimed[r], s.Name)
		}
	}
	all := statements(t)
	if len(all) < 60 {
		t.Fatalf("only %d statements found in docs/semantics.md; has its form changed?", len(all))
	}
	for _, s := range all {
		if claimed[s.name] == nil {
			t.Errorf("no scenario shows %q: %s", s.name, s.text)
		}
		delete(claimed, s.name)
	}
	for row, by := range claimed {
		t.Errorf("docs/semantics.md has no %q, which %v show", row, by)
	}
}

// one is the family of rows that concern one alone, 0 for those about frames of
// any kind. All others concern both.
var one = map[string]core.Family{
	"sender 2": 0, "sender 4": 0, "sender 5": 0, "sender 6": 0, "sender 7": 0, "sender 8": 0, "sender 9": 0,
	"sender 10": core.IPv4, "sender 11": core.IPv6, "sender 17": core.IPv6, "sender 18": core.IPv6, "sender 21": core.IPv6,
	"sender 22":  core.IPv6, // in IPv4 row 10 is always first
	"receiver 5": 0, "receiver 6": 0, "receiver 13": core.IPv6,
}

type decision struct {
	row    string
	family core.Family
}

// What a scenario claims to show must be so: a row decides one of its steps, in
// each family that it is about.
func TestScenariosShowWhatTheySay(t *testing.T) {
	shown := map[decision]bool{}
	for _, s := range scenarios.All() {
		for _, d := range decisions(t, s) {
			if slices.Contains(s.Rows, d.row) {
				shown[d] = true
			}
		}
	}
	for _, s := range statements(t) {
		if !strings.HasPrefix(s.text, "| ") || !numberedRow.MatchString(s.text) {
			continue
		}
		families := []core.Family{core.IPv4, core.IPv6}
		if f, single := one[s.name]; single {
			families = []core.Family{f}
		}
		for _, f := range families {
			if !shown[decision{s.name, f}] && !(f == 0 && (shown[decision{s.name, core.IPv4}] || shown[decision{s.name, core.IPv6}])) {
				t.Errorf("%s decides no step of a scenario that names it, %s: %s", s.name, f, s.text)
			}
		}
	}
}

// decisions plays a scenario on the evaluator alone, and lists the rows that
// decided its steps.
func decisions(t *testing.T, s scenarios.Scenario) []decision {
	t.Helper()
	m, err := scenarios.NewModel(s.World)
	if err != nil {
		t.Fatalf("%s: %v", s.Name, err)
	}
	var out []decision
	for _, step := range s.Steps {
		switch {
		case step.Change != nil:
			if _, err := m.Change(step.Change); err != nil {
				t.Fatalf("%s: %s: %v", s.Name, step.Name, err)
			}
			m.Tracker.Sweep()
			continue
		case step.Netfilter != nil:
			m.Tracker.SetNetfilter(step.Netfilter.Bridge, step.Netfilter.On)
			continue
		case step.Restart:
			continue
		}
		v, err := m.Judge(step)
		if err != nil {
			t.Fatalf("%s: %s: %v", s.Name, step.Name, err)
		}
		if v.Allowed != step.Want || step.Reason != "" && v.Reason != step.Reason {
			t.Errorf("%s: %s: want %v %s, the evaluator says %v", s.Name, step.Name, step.Want, step.Reason, v)
		}
		f := step.First().Family()
		for side, o := range map[string]policy.Opinion{"sender": v.Sender, "receiver": v.Receiver} {
			if o.Row != 0 {
				out = append(out, decision{fmt.Sprint(side, " ", o.Row), f})
			}
		}
		if step.Fragments != nil {
			out = append(out, decision{"sender 12", f}) // it decides how the others read
		}
	}
	return out
}
