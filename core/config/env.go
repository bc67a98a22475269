package config

import (
	"errors"
	"slices"
	"strings"

	"github.com/knadh/koanf/providers/env/v2"
	"github.com/knadh/koanf/providers/posflag"
	"github.com/spf13/pflag"

	"github.com/ringwall/ringwall/core"
	"github.com/ringwall/ringwall/core/internal/nearest"
)

// Environment variables with a meaning of their own.
const (
	EnvPrefix  = "RINGWALL_"
	EnvCluster = "RINGWALL_CLUSTER" // the cluster of this host
	EnvConfig  = "RINGWALL_CONFIG"  // the config file, as --config; read by the commands
)

// environment reads RINGWALL_ variables, one layer each so that origins name
// the variable, and the cluster. __ stands between levels; lists are
// separated by commas.
func environment(environ []string) (layers []layer, cluster string, err error) {
	var errs []error
	p := env.Provider("", env.Opt{
		Prefix:      EnvPrefix,
		EnvironFunc: func() []string { return environ },
		TransformFunc: func(name, text string) (string, any) {
			switch name {
			case EnvCluster:
				cluster = text
				return "", nil
			case EnvConfig:
				return "", nil
			}
			path := strings.Split(strings.ToLower(strings.TrimPrefix(name, EnvPrefix)), "__")
			values := map[string]any{}
			set(values, path, fromText(path, text))
			l := layer{"environment: " + name, values}
			if err := check("", values); err != nil {
				errs = append(errs, envError(name, err))
				return "", nil
			}
			layers = append(layers, l)
			return "", nil
		},
	})
	if _, err := p.Read(); err != nil {
		return nil, "", err
	}
	slices.SortFunc(layers, func(a, b layer) int { return strings.Compare(a.from, b.from) })
	// A driver's name first: it clears the settings of another.
	slices.SortStableFunc(layers, func(a, b layer) int { return order(a) - order(b) })
	return layers, cluster, errors.Join(errs...)
}

func order(l layer) int {
	for _, c := range [][2]string{{"backend", "driver"}, {"hypervisor", "adapter"}} {
		if section, ok := l.values[c[0]].(map[string]any); ok && section[c[1]] != nil {
			return 0
		}
	}
	return 1
}

// envError names the variable instead of the key.
func envError(name string, err error) error {
	var f *core.FieldError
	if !errors.As(err, &f) {
		return err
	}
	out := *f
	out.Path = name
	if strings.HasPrefix(out.Reason, "unknown key") {
		var known []string
		for _, k := range Schema() {
			known = append(known, envName(k.Name))
		}
		out.Reason = "unknown variable"
		if n := nearest.Key(name, known); n != "" {
			out.Reason += "; did you mean " + n + "?"
		}
	}
	return &out
}

func envName(key string) string {
	return EnvPrefix + strings.ToUpper(strings.ReplaceAll(key, ".", "__"))
}

// fromText gives text the type of its key, where the schema knows it.
func fromText(path []string, text string) any {
	name := slices.Clone(path)
	if len(name) == 3 && name[0] == "plugins" {
		name[1] = "*"
	}
	i := slices.IndexFunc(Schema(), func(k Key) bool { return k.Name == strings.Join(name, ".") })
	if i < 0 {
		return text
	}
	switch Schema()[i].Type {
	case TypeBool:
		if text == "true" || text == "false" {
			return text == "true"
		}
	case TypeStrings, TypePatterns, TypeSums:
		list := []any{}
		for _, s := range splitList(text) {
			list = append(list, s)
		}
		return list
	}
	return text
}

// flagKeys names the key that each flag sets.
var flagKeys = []struct{ flag, key, help string }{
	{"state", "state", "`folder` that holds desired state"},
	{"socket", "socket.path", "`path` of the agent's socket"},
	{"log-level", "log.level", "debug, info, warn or error"},
	{"log-format", "log.format", "text or json"},
}

// Flags is a flag set of config's own: koanf would read every flag of a
// command's set, help included, as a key.
func Flags() *pflag.FlagSet {
	fs := pflag.NewFlagSet("config", pflag.ContinueOnError)
	for _, f := range flagKeys {
		fs.String(f.flag, "", f.help)
	}
	return fs
}

func flagLayers(fs *pflag.FlagSet) (layers []layer, err error) {
	for _, f := range flagKeys {
		p := posflag.ProviderWithFlag(fs, ".", nil, func(pf *pflag.Flag) (string, any) {
			if pf.Name != f.flag {
				return "", nil
			}
			return f.key, pf.Value.String()
		})
		values, err := p.Read()
		if err != nil {
			return nil, err
		}
		if len(values) == 0 {
			continue
		}
		if err := check("", values); err != nil {
			var fe *core.FieldError
			if errors.As(err, &fe) {
				err = &core.FieldError{Path: "--" + f.flag, Value: fe.Value, Reason: fe.Reason}
			}
			return nil, err
		}
		layers = append(layers, layer{"flag: --" + f.flag, values})
	}
	return layers, nil
}
