package config

import (
	"cmp"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	"github.com/go-viper/mapstructure/v2"
	"github.com/knadh/koanf/providers/confmap"
	"github.com/knadh/koanf/v2"

	"github.com/ringwall/ringwall/core"
)

const builtIn = "built-in"

// layer is one source's values in the schema's form, checked.
type layer struct {
	from   string
	values map[string]any
}

// builder merges layers and remembers which one each value came from.
type builder struct {
	k    *koanf.Koanf
	from map[string]string // leaf key -> layer
}

// resolve merges layers over the built-in defaults and decodes the result,
// which it returns beside an error where the error is about its meaning.
func resolve(layers []layer, known Known) (*Loaded, error) {
	b := builder{koanf.New("."), map[string]string{}}
	for _, l := range append([]layer{builtInLayer()}, layers...) {
		if err := b.add(l); err != nil {
			return nil, err
		}
	}
	if b.k.Bool("cloudstack.enabled") {
		if err := b.add(cloudstackLayer(b.from)); err != nil {
			return nil, err
		}
	}
	l := &Loaded{values: b.k.Raw()}
	if err := b.decode(&l.Config); err != nil {
		return nil, err
	}
	leaves := map[string]any{}
	flattenValues("", l.values, leaves)
	for _, key := range slices.Sorted(maps.Keys(leaves)) {
		l.Origins = append(l.Origins, Origin{key, leaves[key], b.from[key]})
	}
	return l, l.verify(known)
}

func builtInLayer() layer {
	values := map[string]any{}
	for _, k := range Schema() {
		if k.Default != nil && !strings.Contains(k.Name, "*") {
			set(values, strings.Split(k.Name, "."), k.Default)
		}
	}
	return layer{builtIn, values}
}

// cloudstackLayer is what CloudStack's rules mean, where nobody says otherwise.
func cloudstackLayer(from map[string]string) layer {
	values := map[string]any{"always_allow": []any{AllowDNS}, "multicast": core.MulticastDrop.String()}
	maps.DeleteFunc(values, func(key string, _ any) bool { return from[key] != builtIn })
	return layer{"cloudstack.enabled", values}
}

func (b *builder) add(l layer) error {
	// Settings belong to the driver or adapter that they were written for:
	// another one starts without them.
	for _, c := range [][2]string{{"backend", "driver"}, {"hypervisor", "adapter"}} {
		section, _ := l.values[c[0]].(map[string]any)
		if name, ok := section[c[1]].(string); ok && name != b.k.String(c[0]+"."+c[1]) {
			b.k.Delete(c[0] + ".settings")
			maps.DeleteFunc(b.from, func(key, _ string) bool { return strings.HasPrefix(key, c[0]+".settings.") })
		}
	}
	// No delimiter: a dot in the name of a plugin or a setting is not a level.
	if err := b.k.Load(confmap.Provider(l.values, ""), nil); err != nil {
		return fmt.Errorf("%s: %w", l.from, err)
	}
	leaves := map[string]any{}
	flattenValues("", l.values, leaves)
	for key := range leaves {
		b.from[key] = l.from
	}
	return nil
}

// decode fills c; a key that Config has no field for is an error, so that
// the schema and the struct cannot drift apart.
func (b *builder) decode(c *Config) error {
	return b.k.UnmarshalWithConf("", c, koanf.UnmarshalConf{DecoderConfig: &mapstructure.DecoderConfig{
		Result:           c,
		ErrorUnused:      true,
		WeaklyTypedInput: true, // socket.owner: 0
		DecodeHook:       mapstructure.DecodeHookFuncType(decodeEnums),
	}})
}

func decodeEnums(_, to reflect.Type, v any) (any, error) {
	switch to {
	case reflect.TypeFor[core.EgressDefault]():
		if v == core.EgressExplicit.String() {
			return core.EgressExplicit, nil
		}
		return core.EgressUntilRules, nil
	case reflect.TypeFor[core.MulticastMode]():
		if v == core.MulticastDrop.String() {
			return core.MulticastDrop, nil
		}
		return core.MulticastByRules, nil
	}
	return v, nil
}

// flattenValues lists the leaves below m by their joined names.
func flattenValues(prefix string, m map[string]any, out map[string]any) {
	for name, v := range m {
		key := join(prefix, name)
		if sub, ok := v.(map[string]any); ok {
			flattenValues(key, sub, out)
			continue
		}
		out[key] = v
	}
}

// set stores v at a path of names.
func set(m map[string]any, path []string, v any) {
	for _, name := range path[:len(path)-1] {
		sub, ok := m[name].(map[string]any)
		if !ok {
			sub = map[string]any{}
			m[name] = sub
		}
		m = sub
	}
	m[path[len(path)-1]] = v
}

func sortedKeys[K cmp.Ordered, V any](m map[K]V) []K { return slices.Sorted(maps.Keys(m)) }
