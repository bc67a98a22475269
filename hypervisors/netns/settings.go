package netns

import (
	"fmt"
	"path/filepath"
	"strings"

	"github.com/ringwall/ringwall/core"
)

var settingInfos = []core.SettingInfo{
	{Name: "directory", Type: "string", Default: "/run/netns",
		Help: "where namespaces have their names; ip-netns(8) uses the default"},
	{Name: "namespaces", Type: "strings", Default: "[vm-*]",
		Help: "which namespaces are VMs: names, or prefixes with *"},
	{Name: "ports", Type: "strings", Default: "[vnet*, tap*]",
		Help: "which interfaces on this side are VMs': names, or prefixes with *"},
}

type settings struct {
	directory  string
	namespaces []core.Pattern
	ports      []core.Pattern
}

func parseSettings(s core.Settings) (settings, error) {
	out := settings{
		directory:  "/run/netns",
		namespaces: []core.Pattern{"vm-*"},
		ports:      []core.Pattern{"vnet*", "tap*"},
	}
	for name, v := range s {
		var err error
		path := "hypervisor.settings." + name
		switch name {
		case "directory":
			text, ok := v.(string)
			if !ok || !filepath.IsAbs(text) {
				return settings{}, &core.FieldError{Path: path, Value: fmt.Sprint(v), Reason: "not an absolute path"}
			}
			out.directory = filepath.Clean(text)
		case "namespaces":
			out.namespaces, err = parsePatterns(path, v, parseNamespacePattern)
		case "ports":
			out.ports, err = parsePatterns(path, v, core.ParsePattern)
		default:
			return settings{}, &core.FieldError{Path: path, Value: fmt.Sprint(v), Reason: "no such setting; " + Name + " knows directory, namespaces, ports"}
		}
		if err != nil {
			return settings{}, err
		}
	}
	return out, nil
}

// parsePatterns reads a list, in whatever type the config's decoder has left it.
func parsePatterns(path string, v any, parse func(string) (core.Pattern, error)) ([]core.Pattern, error) {
	var items []any
	switch v := v.(type) {
	case string:
		items = []any{v}
	case []string:
		for _, s := range v {
			items = append(items, s)
		}
	case []any:
		items = v
	default:
		return nil, &core.FieldError{Path: path, Value: fmt.Sprint(v), Reason: "not a list of names"}
	}
	if len(items) == 0 {
		return nil, &core.FieldError{Path: path, Reason: "an empty list would find nothing; name one, or leave the setting out"}
	}
	patterns := make([]core.Pattern, 0, len(items))
	for i, item := range items {
		text, ok := item.(string)
		reason := "not a name"
		if ok {
			p, err := parse(text)
			if err == nil {
				patterns = append(patterns, p)
				continue
			}
			reason = err.Error()
		}
		return nil, &core.FieldError{Path: fmt.Sprintf("%s[%d]", path, i), Value: fmt.Sprint(item), Reason: reason}
	}
	return patterns, nil
}

// parseNamespacePattern allows file names, which may be longer than those of
// interfaces.
func parseNamespacePattern(s string) (core.Pattern, error) {
	name, wild := strings.CutSuffix(s, "*")
	switch {
	case name == "" && !wild:
		return "", fmt.Errorf("empty; use a namespace's name or a prefix and *")
	case strings.ContainsAny(name, "*?[]/\n"):
		return "", fmt.Errorf("not a namespace's name; only one * is understood, at the end")
	}
	return core.Pattern(s), nil
}
