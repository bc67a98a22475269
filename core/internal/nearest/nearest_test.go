package nearest

import "testing"

func TestKey(t *testing.T) {
	known := []string{"name", "rules", "direction", "protocol", "ports", "from", "to", "anti_spoofing"}
	for word, want := range map[string]string{
		"nmae":         "name", // neighbours swapped
		"rule":         "rules",
		"Protocol":     "protocol",
		"proto":        "protocol", // ports has fewer letters to change
		"antispoofing": "anti_spoofing",
		"frm":          "from",
		"t":            "to",
		"xyzzy":        "",
		"":             "",
	} {
		if got := Key(word, known); got != want {
			t.Errorf("Key(%q) = %q, want %q", word, got, want)
		}
	}
}

func TestDistance(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want int
	}{{"", "abc", 3}, {"abc", "abc", 0}, {"abc", "acb", 1}, {"kitten", "sitting", 3}, {"ca", "abc", 3}} {
		if got := distance(c.a, c.b); got != c.want {
			t.Errorf("distance(%q, %q) = %d, want %d", c.a, c.b, got, c.want)
		}
	}
}

func TestUnknownKey(t *testing.T) {
	if got, want := UnknownKey("zzz", []string{"a1", "b1"}), "unknown key; known here: a1, b1"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
