package config

import (
	"flag"
	"fmt"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestSchemaIsStruct: the schema and Config have the same keys.
func TestSchemaIsStruct(t *testing.T) {
	var fields []string
	var walk func(prefix string, typ reflect.Type)
	walk = func(prefix string, typ reflect.Type) {
		for i := range typ.NumField() {
			f := typ.Field(i)
			tag := f.Tag.Get("koanf")
			switch name := join(prefix, tag); {
			case tag == "-":
			case tag == "":
				t.Errorf("%s.%s has no koanf tag", typ, f.Name)
			case f.Type.Kind() == reflect.Struct:
				walk(name, f.Type)
			case f.Type == reflect.TypeFor[map[string]Plugin]():
				walk(name+".*", reflect.TypeFor[Plugin]())
			default:
				fields = append(fields, name)
			}
		}
	}
	walk("", reflect.TypeFor[Config]())
	var keys []string
	for _, k := range Schema() {
		keys = append(keys, k.Name)
	}
	slices.Sort(fields)
	slices.Sort(keys)
	if !slices.Equal(fields, keys) {
		t.Errorf("struct %v\nschema %v", fields, keys)
	}
}

var update = flag.Bool("update", false, "rewrite the table in docs/configuration.md")

const page = "../../docs/configuration.md"

// TestDocumented: the table of the reference is the schema's.
func TestDocumented(t *testing.T) {
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	const begin, end = "<!-- keys -->\n", "<!-- end of keys -->\n"
	before, rest, found := strings.Cut(string(text), begin)
	have, after, closed := strings.Cut(rest, end)
	if !found || !closed {
		t.Fatalf("%s has no table between %q and %q", page, begin, end)
	}
	want := table(Schema())
	if *update {
		if err := os.WriteFile(page, []byte(before+begin+want+end+after), 0o644); err != nil {
			t.Fatal(err)
		}
		have = want
	}
	if diff := cmp.Diff(want, have); diff != "" {
		t.Errorf("run go test -update; -schema +page:\n%s", diff)
	}
	for _, name := range []string{EnvCluster, EnvConfig} {
		if !strings.Contains(string(text), name) {
			t.Errorf("%s does not mention %s", page, name)
		}
	}
	for _, f := range flagKeys {
		if !strings.Contains(string(text), "--"+f.flag) {
			t.Errorf("%s does not mention --%s", page, f.flag)
		}
	}
}

func table(keys []Key) string {
	var b strings.Builder
	b.WriteString("| key | value | default | meaning |\n|---|---|---|---|\n")
	for _, k := range keys {
		value := string(k.Type)
		if k.Choices != nil {
			value = "`" + strings.Join(k.Choices, "`, `") + "`"
			if k.Type == TypeStrings {
				value = "list of " + value
			}
		}
		def := ""
		switch d := k.Default.(type) {
		case nil:
		case []string:
			def = "`[" + strings.Join(d, ", ") + "]`"
		case string:
			if d != "" {
				def = "`" + d + "`"
			}
		default:
			def = fmt.Sprintf("`%v`", d)
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", strings.ReplaceAll(k.Name, "*", "NAME"), value, def, k.Help)
	}
	return b.String()
}

// TestPageExample: the file that the page shows has no mistake.
func TestPageExample(t *testing.T) {
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), "```yaml\n")
	example, _, found := strings.Cut(rest, "```")
	if !found {
		t.Fatal("no example")
	}
	classes, err := Check(write(t, map[string]string{"config.yaml": example}), known())
	if err != nil {
		t.Fatal(err)
	}
	if len(classes) != 5 {
		t.Errorf("%d classes of hosts: %+v", len(classes), classes)
	}
	for _, c := range classes {
		if len(c.Errors) > 0 || len(c.Warnings) > 0 {
			t.Errorf("%s %s: %v %v", c.Cluster, c.Host, c.Errors, c.Warnings)
		}
	}
}
