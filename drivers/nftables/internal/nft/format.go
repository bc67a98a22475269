package nft

import (
	"fmt"
	"slices"
	"strings"
)

// String prints the table much as `nft list table` does, a line for each rule
// and element. What a dynamic set holds and what counters counted is left out.
func (t *Table) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "table %s {\n", t.TableID)
	if t.Dormant {
		b.WriteString("\tflags dormant\n")
	}
	for _, object := range t.Foreign {
		fmt.Fprintf(&b, "\t%s {}\n", object)
	}
	for _, name := range sortedKeys(t.Sets) {
		s := t.Sets[name]
		fmt.Fprintf(&b, "\t%s {\n", s.title())
		if !s.Dynamic {
			for _, e := range sortedElements(s.Elements) {
				fmt.Fprintf(&b, "\t\t%s\n", s.formatElement(e.key, e.value))
			}
		}
		b.WriteString("\t}\n")
	}
	for _, name := range sortedKeys(t.Chains) {
		c := t.Chains[name]
		fmt.Fprintf(&b, "\tchain %s {\n", name)
		if c.Base != nil {
			fmt.Fprintf(&b, "\t\t%s\n", c.headline(t.Family))
		}
		for _, r := range c.Rules {
			fmt.Fprintf(&b, "\t\t%s\n", t.formatRule(r))
		}
		b.WriteString("\t}\n")
	}
	b.WriteString("}\n")
	return b.String()
}

// headline is a chain without its rules, in a line.
func (c *Chain) headline(f Family) string {
	if c.Base == nil {
		return "regular chain"
	}
	b := c.Base
	devices := ""
	if len(b.Devices) > 0 {
		devices = " devices " + strings.Join(slices.Sorted(slices.Values(b.Devices)), ", ")
	}
	return fmt.Sprintf("type %s hook %s%s priority %d policy %s", b.Type, hookName(f, b.Hook), devices, b.Priority, b.Policy)
}

func (s *Set) title() string {
	kind := "set"
	if s.IsMap() {
		kind = "map"
	}
	return fmt.Sprintf("%s %s: %s", kind, s.Name, s.headline())
}

// headline is a set without its elements, in a line.
func (s *Set) headline() string {
	names := make([]string, len(s.Key))
	for i, t := range s.Key {
		names[i] = t.Name
	}
	text := "type " + strings.Join(names, " . ")
	if s.IsMap() {
		text += " : " + s.Data.Name
	}
	if s.Interval {
		text += " interval"
	}
	if s.Dynamic {
		text += " dynamic"
	}
	if s.Counter {
		text += " counter"
	}
	if s.Size != 0 {
		text += fmt.Sprintf(" size %d", s.Size)
	}
	if s.Flags != 0 {
		text += fmt.Sprintf(" flags 0x%x", s.Flags)
	}
	if s.Comment != "" {
		text += fmt.Sprintf(" comment %q", s.Comment)
	}
	return text
}

func (s *Set) formatElement(k Key, v Value) string {
	key := s.formatKey(k)
	switch {
	case s.IsVerdictMap():
		return key + " : " + formatVerdict(v.Verdict)
	case s.IsMap():
		return key + " : " + formatValue(s.Data, v.Data)
	}
	return key
}

func (s *Set) formatKey(k Key) string {
	if k == (Key{}) {
		return "*"
	}
	if len(s.Key) == 1 {
		return formatRange(s.Key[0], k.From, k.To)
	}
	fields := make([]string, 0, len(s.Key))
	from, to := k.From, k.To
	for _, t := range s.Key {
		if len(from) < padded(t.Size) {
			return fmt.Sprintf("0x%x", k.From)
		}
		hi := ""
		if len(to) >= padded(t.Size) {
			hi, to = to[:t.Size], to[padded(t.Size):]
		}
		fields = append(fields, formatRange(t, from[:t.Size], hi))
		from = from[padded(t.Size):]
	}
	return strings.Join(fields, " . ")
}
