package main

import (
	"encoding/xml"
	"fmt"
	"strings"

	"github.com/ringwall/ringwall/core"
)

// call is XAPI's only argument: an XML-RPC methodCall whose params are a session
// and a map of strings.
type call struct {
	function string
	args     map[string]string
}

// valueXML is a <value>: a string with or without its element, or a struct.
type valueXML struct {
	Text   string     `xml:",chardata"`
	String *string    `xml:"string"`
	Struct *structXML `xml:"struct"`
	Others []alienXML `xml:",any"`
}

type structXML struct {
	Members []memberXML `xml:"member"`
	Others  []alienXML  `xml:",any"`
}

type memberXML struct {
	Names  []string   `xml:"name"`
	Values []valueXML `xml:"value"`
}

type alienXML struct{ XMLName xml.Name }

type callXML struct {
	XMLName xml.Name   `xml:"methodCall"`
	Names   []string   `xml:"methodName"`
	Params  []valueXML `xml:"params>param>value"`
}

// maxCall is more than Linux passes in one argument.
const maxCall = 1 << 20

// parseCall reads a call. What is not one is an ErrInvalid.
func parseCall(text string) (c call, err error) {
	fault := func(format string, args ...any) (call, error) {
		return call{}, fmt.Errorf("the XML-RPC call: "+format+": %w", append(args, core.ErrInvalid)...)
	}
	if len(text) > maxCall {
		return fault("%d bytes", len(text))
	}
	d := xml.NewDecoder(strings.NewReader(text))
	var x callXML
	if err := d.Decode(&x); err != nil {
		return fault("%w", err)
	}
	switch {
	case len(x.Names) != 1 || strings.TrimSpace(x.Names[0]) == "":
		return fault("%d method names", len(x.Names))
	case len(x.Params) != 2 || x.Params[1].Struct == nil:
		return fault("its params are not a session and a struct")
	}
	if _, ok := x.Params[0].text(); !ok {
		return fault("the session is no string")
	}
	c = call{strings.TrimSpace(x.Names[0]), map[string]string{}}
	if len(x.Params[1].Struct.Others) > 0 {
		return fault("a struct with more than members")
	}
	for _, m := range x.Params[1].Struct.Members {
		if len(m.Names) != 1 || len(m.Values) != 1 {
			return fault("a member with %d names and %d values", len(m.Names), len(m.Values))
		}
		v, ok := m.Values[0].text()
		if !ok {
			return fault("the value of %q is no string", m.Names[0])
		}
		if _, twice := c.args[m.Names[0]]; twice {
			return fault("%q is there twice", m.Names[0])
		}
		c.args[m.Names[0]] = v
	}
	return c, nil
}

func (v valueXML) text() (string, bool) {
	switch {
	case v.Struct != nil || len(v.Others) > 0:
		return "", false
	case v.String != nil:
		return *v.String, true
	}
	return v.Text, true
}

// The answers are, byte for byte, what Python's XML-RPC library makes of them,
// as the stock plugin prints it.
const (
	answerHead = "<?xml version='1.0'?>\n<methodResponse>\n<params>\n<param>\n<value><struct>\n<member>\n<name>Status</name>\n<value><string>%s</string></value>\n</member>\n<member>\n"
	answerTail = "</member>\n</struct></value>\n</param>\n</params>\n</methodResponse>\n\n"
)

func success(value string) string {
	return fmt.Sprintf(answerHead, "Success") + "<name>Value</name>\n<value><string>" + escape(value) + "</string></value>\n" + answerTail
}

func failure(description ...string) string {
	var b strings.Builder
	fmt.Fprintf(&b, answerHead, "Failure")
	b.WriteString("<name>ErrorDescription</name>\n<value><array><data>\n")
	for _, d := range description {
		b.WriteString("<value><string>" + escape(d) + "</string></value>\n")
	}
	b.WriteString("</data></array></value>\n" + answerTail)
	return b.String()
}

var escaper = strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;")

// escape leaves out what XML cannot hold: XAPI would not read the answer.
func escape(s string) string {
	return escaper.Replace(strings.Map(func(r rune) rune {
		if r == 0xFFFD || r < ' ' && r != '\n' && r != '\t' || r == 0xFFFE || r == 0xFFFF {
			return '?'
		}
		return r
	}, strings.ToValidUTF8(s, "?")))
}
