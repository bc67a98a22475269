package config

import (
	"errors"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/core/internal/nearest"
)

// CheckSettings holds s against the schema of the driver or adapter that it is
// for. It returns s in the schema's types: bool, int, string, lists of strings
// as []any (a duration stays a string), so that "true" from the environment is
// true.
// Errors are FieldErrors below path.
func CheckSettings(path string, s core.Settings, schema []core.SettingInfo) (core.Settings, error) {
	known := make([]string, len(schema))
	byName := map[string]core.SettingInfo{}
	for i, info := range schema {
		known[i] = info.Name
		byName[info.Name] = info
	}
	var errs []error
	out := core.Settings{}
	for _, name := range slices.Sorted(maps.Keys(s)) {
		at := join(path, name)
		info, ok := byName[name]
		if !ok {
			reason := "unknown key; it has no settings"
			if len(known) > 0 {
				reason = nearest.UnknownKey(name, known)
			}
			errs = append(errs, &core.FieldError{Path: at, Reason: reason})
			continue
		}
		v, reason := setting(info, s[name])
		if reason != "" {
			errs = append(errs, &core.FieldError{Path: at, Value: show(s[name]), Reason: reason})
			continue
		}
		out[name] = v
	}
	for _, info := range schema {
		if _, ok := s[info.Name]; info.Required && !ok {
			errs = append(errs, &core.FieldError{Path: join(path, info.Name), Reason: "missing: " + info.Help})
		}
	}
	return out, errors.Join(errs...)
}

// setting converts one value; a reason says why it cannot.
func setting(info core.SettingInfo, v any) (out any, reason string) {
	text, isText := v.(string)
	switch info.Type {
	case "bool":
		if isText {
			b, err := strconv.ParseBool(text)
			if err != nil {
				return nil, "not true or false"
			}
			return b, ""
		}
		if _, ok := v.(bool); !ok {
			return nil, "not true or false"
		}
		return v, ""
	case "int":
		if isText {
			n, err := strconv.Atoi(text)
			if err != nil {
				return nil, "not a whole number"
			}
			return n, ""
		}
		if !isInt(v) {
			return nil, "not a whole number"
		}
		return v, ""
	case "duration":
		if _, err := time.ParseDuration(text); !isText || err != nil {
			return nil, "not a duration; use a form like 30s or 5m"
		}
		return text, ""
	case "strings":
		return settingList(info, v)
	}
	if !isText {
		return nil, "not a string; put it in quotes"
	}
	if len(info.Choices) > 0 && !slices.Contains(info.Choices, text) {
		return nil, notOneOf(text, info.Choices)
	}
	return text, ""
}

// settingList takes a list, or the comma-separated form of the environment.
func settingList(info core.SettingInfo, v any) (any, string) {
	items := []any{}
	switch v := v.(type) {
	case []any:
		items = v
	case string:
		for _, s := range splitList(v) {
			items = append(items, s)
		}
	default:
		return nil, "not a list; write [a, b]"
	}
	for _, item := range items {
		s, ok := item.(string)
		if !ok {
			return nil, "item " + show(item) + " is not a string; put it in quotes"
		}
		if len(info.Choices) > 0 && !slices.Contains(info.Choices, s) {
			return nil, "item " + s + " is " + notOneOf(s, info.Choices)
		}
	}
	return items, ""
}

// splitList reads a,b,c; nothing gives an empty list.
func splitList(s string) []string {
	out := []string{}
	for item := range strings.SplitSeq(s, ",") {
		if item = strings.TrimSpace(item); item != "" {
			out = append(out, item)
		}
	}
	return out
}
