package xtables

import (
	"slices"
	"strings"
)

// Option is one option of a rule with its values: -s 10.0.0.0/8, or
// ! --mark 0x1/0x1.
type Option struct {
	Not    bool
	Name   string
	Values []string
}

// Opt is a plain option.
func Opt(name string, values ...string) Option { return Option{Name: name, Values: values} }

// NotOpt is an inverted one.
func NotOpt(name string, values ...string) Option {
	return Option{Not: true, Name: name, Values: values}
}

// Rule is a line of a chain: matches, and a target as its last options. In
// iptables each match is introduced by its module: -m udp --dport 53.
type Rule struct {
	Options []Option
	// Label says what the rule's counters count; no part of the rule itself.
	Label any
}

// New joins options to a rule.
func New(parts ...[]Option) Rule { return Rule{Options: slices.Concat(parts...)} }

// Labelled is the rule with a label.
func (r Rule) Labelled(label any) Rule {
	r.Label = label
	return r
}

// Target is the chain or the verdict that the rule leads to; empty when it only
// counts.
func (r Rule) Target() string {
	for _, o := range r.Options {
		if (o.Name == "-j" || o.Name == "-g") && len(o.Values) == 1 {
			return o.Values[0]
		}
	}
	return ""
}

// Text is the rule as the restore programs read it, without its chain.
func (r Rule) Text() string {
	var b strings.Builder
	for i, o := range r.Options {
		if i > 0 {
			b.WriteByte(' ')
		}
		if o.Not {
			b.WriteString("! ")
		}
		b.WriteString(o.Name)
		for _, v := range o.Values {
			b.WriteByte(' ')
			b.WriteString(quoted(v))
		}
	}
	return b.String()
}

func quoted(v string) string {
	if v != "" && !strings.ContainsAny(v, " \t\"'\\&;|") {
		return v
	}
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(v) + `"`
}

// parseRule reads what Text writes, and what the save programs print.
func parseRule(text string) Rule {
	var r Rule
	not := false
	for _, word := range words(text) {
		switch {
		case word.text == "!" && !word.quoted:
			not = true
		case strings.HasPrefix(word.text, "-") && !word.quoted && !isNumber(word.text):
			r.Options = append(r.Options, Option{Not: not, Name: word.text})
			not = false
		case len(r.Options) > 0:
			last := &r.Options[len(r.Options)-1]
			last.Values = append(last.Values, word.text)
			// ebtables prints the inversion behind the option: -p ! ARP.
			last.Not = last.Not || not
			not = false
		}
	}
	return r
}

func isNumber(s string) bool { return len(s) > 1 && s[1] >= '0' && s[1] <= '9' }

type word struct {
	text   string
	quoted bool
}

func words(text string) []word {
	var out []word
	for i := 0; i < len(text); {
		switch c := text[i]; c {
		case ' ', '\t':
			i++
		case '"':
			var b strings.Builder
			for i++; i < len(text) && text[i] != '"'; i++ {
				if text[i] == '\\' && i+1 < len(text) {
					i++
				}
				b.WriteByte(text[i])
			}
			i++
			out = append(out, word{b.String(), true})
		default:
			j := i
			for j < len(text) && text[j] != ' ' && text[j] != '\t' {
				j++
			}
			out = append(out, word{text[i:j], false})
			i = j
		}
	}
	return out
}
