package xapi

import (
	"bytes"
	"encoding/xml"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// element is any XML element.
type element struct {
	XMLName  xml.Name
	Children []element `xml:",any"`
	Text     string    `xml:",chardata"`
}

func (e element) child(path ...string) *element {
	at := &e
	for _, name := range path {
		i := slices.IndexFunc(at.Children, func(c element) bool { return c.XMLName.Local == name })
		if i < 0 {
			return nil
		}
		at = &at.Children[i]
	}
	return at
}

// value reads a <value>.
func (e element) value() (any, error) {
	if len(e.Children) == 0 {
		return e.Text, nil // a string without its element
	}
	if len(e.Children) > 1 {
		return nil, fmt.Errorf("a value with %d elements", len(e.Children))
	}
	v := e.Children[0]
	switch kind := v.XMLName.Local; kind {
	case "string", "dateTime.iso8601", "i4", "int", "i8":
		return v.Text, nil // XAPI reads integers out of strings as well
	case "boolean":
		return v.Text == "1", nil
	case "double":
		return strconv.ParseFloat(strings.TrimSpace(v.Text), 64)
	case "array":
		out := []any{}
		data := v.child("data")
		if data == nil {
			return nil, fmt.Errorf("an array without data")
		}
		for _, c := range data.Children {
			item, err := c.value()
			if err != nil {
				return nil, err
			}
			out = append(out, item)
		}
		return out, nil
	case "struct":
		out := Record{}
		for _, m := range v.Children {
			name, value := m.child("name"), m.child("value")
			if m.XMLName.Local != "member" || name == nil || value == nil {
				return nil, fmt.Errorf("a struct whose members have no name or value")
			}
			item, err := value.value()
			if err != nil {
				return nil, err
			}
			out[name.Text] = item
		}
		return out, nil
	default:
		return nil, fmt.Errorf("a value of type %s", kind)
	}
}

func params(root *element) ([]any, error) {
	var out []any
	list := root.child("params")
	if list == nil {
		return nil, nil
	}
	for _, p := range list.Children {
		v := p.child("value")
		if v == nil {
			return nil, fmt.Errorf("a param without a value")
		}
		item, err := v.value()
		if err != nil {
			return nil, err
		}
		out = append(out, item)
	}
	return out, nil
}

func decodeXMLCall(b []byte) (method string, args []any, err error) {
	var root element
	if err := xml.Unmarshal(b, &root); err != nil {
		return "", nil, err
	}
	name := root.child("methodName")
	if root.XMLName.Local != "methodCall" || name == nil {
		return "", nil, fmt.Errorf("no methodCall")
	}
	args, err = params(&root)
	return strings.TrimSpace(name.Text), args, err
}

// decodeXMLAnswer reads what a plugin prints: a value, or a Failure.
func decodeXMLAnswer(b []byte) (any, error) {
	var root element
	if err := xml.Unmarshal(b, &root); err != nil {
		return nil, err
	}
	if fault := root.child("fault", "value"); fault != nil {
		v, _ := fault.value()
		return nil, fail("INTERNAL_ERROR", fmt.Sprint(v))
	}
	args, err := params(&root)
	if err != nil {
		return nil, err
	}
	if root.XMLName.Local != "methodResponse" || len(args) != 1 {
		return nil, fmt.Errorf("no methodResponse with one value")
	}
	answer, ok := args[0].(Record)
	if !ok {
		return nil, fmt.Errorf("the answer is no struct")
	}
	switch answer["Status"] {
	case "Success":
		v, ok := answer["Value"]
		if !ok {
			return nil, fmt.Errorf("a success without Value")
		}
		return v, nil
	case "Failure":
		list, ok := answer["ErrorDescription"].([]any)
		if !ok || len(list) == 0 {
			return nil, fmt.Errorf("a failure without ErrorDescription")
		}
		f := Failure{}
		for _, v := range list {
			f = append(f, fmt.Sprint(v))
		}
		return nil, f
	}
	return nil, fmt.Errorf("unknown Status %v", answer["Status"])
}

func encodeXMLCall(method string, args ...any) string {
	var b bytes.Buffer
	b.WriteString(`<?xml version="1.0"?><methodCall><methodName>`)
	escape(&b, method)
	b.WriteString("</methodName><params>")
	for _, a := range args {
		b.WriteString("<param>")
		writeValue(&b, plain(a))
		b.WriteString("</param>")
	}
	b.WriteString("</params></methodCall>")
	return b.String()
}

func encodeXMLAnswer(v any, err error) []byte {
	answer := Record{"Status": "Success", "Value": v}
	if err != nil {
		answer = Record{"Status": "Failure", "ErrorDescription": []string(asFailure(err))}
	}
	var b bytes.Buffer
	b.WriteString(`<?xml version="1.0"?><methodResponse><params><param>`)
	writeValue(&b, plain(answer))
	b.WriteString("</param></params></methodResponse>")
	return b.Bytes()
}

// writeValue writes strings without their element, as XAPI does.
func writeValue(b *bytes.Buffer, v any) {
	b.WriteString("<value>")
	defer b.WriteString("</value>")
	switch v := v.(type) {
	case string:
		escape(b, v)
	case bool:
		fmt.Fprintf(b, "<boolean>%d</boolean>", map[bool]int{true: 1}[v])
	case float64:
		fmt.Fprintf(b, "<double>%v</double>", v)
	case []any:
		b.WriteString("<array><data>")
		for _, e := range v {
			writeValue(b, e)
		}
		b.WriteString("</data></array>")
	case Record:
		b.WriteString("<struct>")
		for _, k := range slices.Sorted(maps.Keys(v)) {
			b.WriteString("<member><name>")
			escape(b, k)
			b.WriteString("</name>")
			writeValue(b, v[k])
			b.WriteString("</member>")
		}
		b.WriteString("</struct>")
	}
}

func escape(b *bytes.Buffer, s string) {
	b.WriteString(strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;").Replace(s))
}
