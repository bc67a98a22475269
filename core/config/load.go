package config

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/pflag"

	"github.com/ringwall/ringwall/core"
)

// Source is where config comes from.
type Source struct {
	// Path is the config file; empty = DefaultPath, which may be missing.
	Path string
	// Host is the name to look up; empty = this machine's.
	Host string
	// Environ is os.Environ() or what a test puts in its place; nil = nothing.
	Environ []string
	// Flags is a set made by Flags, parsed; nil = none.
	Flags *pflag.FlagSet
	// Known are the drivers and adapters that this program has.
	Known Known
}

// Known describes the drivers and adapters that a program has built in, by
// name. Others can only be plugins.
type Known struct {
	Backends map[string]core.Info
	Adapters map[string]core.Info
}

// Loaded is a config and where each of its values came from.
type Loaded struct {
	Config
	// Path is the config file that was looked for, and Files those that were read.
	Path    string
	Files   []string
	Origins []Origin
	values  map[string]any
}

// Origin says where one value came from.
type Origin struct {
	Key   string `json:"key"`
	Value any    `json:"value"`
	From  string `json:"from"` // "built-in", "FILE: clusters.X", "environment: RINGWALL_MODE", "flag: --mode"
}

// Values is the merged config in the schema's form, for printing.
func (l Loaded) Values() map[string]any { return l.values }

// Load reads, merges and checks the config of one host.
func Load(src Source) (*Loaded, error) {
	if src.Host == "" {
		host, err := os.Hostname()
		if err != nil {
			return nil, fmt.Errorf("this machine's name, which config is looked up by: %w", err)
		}
		src.Host = host
	}
	name := src.Path
	if name == "" {
		name = DefaultPath
	}
	files, err := readFiles(name, src.Path == "")
	if err != nil {
		return nil, err
	}
	env, cluster, err := environment(src.Environ)
	if err != nil {
		return nil, err
	}
	host, err := matchHost(hostPatterns(files), src.Host)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	if cluster, err = chooseCluster(files, src.Host, host, cluster); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	layers := fileLayers(files, cluster, host)
	layers = append(layers, env...)
	if src.Flags != nil {
		flags, err := flagLayers(src.Flags)
		if err != nil {
			return nil, err
		}
		layers = append(layers, flags...)
	}
	l, err := resolve(layers, src.Known)
	if err != nil {
		return nil, err
	}
	l.Path, l.Host, l.Cluster = name, src.Host, cluster
	for _, f := range files {
		l.Files = append(l.Files, f.name)
	}
	return l, nil
}

// chooseCluster prefers RINGWALL_CLUSTER to the host's entry. Where a file has
// clusters, a host outside them is an error: with built-in defaults it would
// manage no bridge, and so leave every VM open.
func chooseCluster(files []file, host, pattern, fromEnv string) (string, error) {
	all := clusterNames(files)
	cluster, at := fromEnv, "RINGWALL_CLUSTER"
	if cluster == "" {
		at = "hosts." + pattern + ".cluster"
		for _, f := range files {
			if c, ok := f.member[pattern]; ok {
				cluster = c
			}
		}
	}
	switch {
	case cluster == "" && len(all) == 0:
		return "", nil
	case cluster == "" && pattern == "":
		return "", &core.FieldError{Path: "hosts", Value: host, Reason: "not in any cluster; add it, as in {hosts: {" + host + ": {cluster: " + all[0] + "}}}, or set RINGWALL_CLUSTER"}
	case cluster == "":
		return "", &core.FieldError{Path: at, Reason: "missing; clusters here: " + strings.Join(all, ", ")}
	case !slices.Contains(all, cluster):
		return "", &core.FieldError{Path: at, Value: cluster, Reason: "no such cluster: " + notOneOf(cluster, all)}
	}
	return cluster, nil
}

// fileLayers is what the files say for a cluster and a host entry, least
// important first.
func fileLayers(files []file, cluster, host string) []layer {
	var out []layer
	add := func(f file, section string, values map[string]any) {
		if len(values) > 0 {
			out = append(out, layer{from: f.name + ": " + section, values: values})
		}
	}
	for _, f := range files {
		add(f, "defaults", f.defaults)
		if len(f.plugins) > 0 {
			add(f, "plugins", map[string]any{"plugins": f.plugins})
		}
		add(f, "clusters."+cluster, f.clusters[cluster])
		add(f, "hosts."+host, f.hosts[host])
	}
	return out
}

// verify checks what only the merged config can tell.
func (l *Loaded) verify(known Known) error {
	var errs []error
	fail := func(key, value, reason string) {
		errs = append(errs, l.at(key, &core.FieldError{Path: key, Value: value, Reason: reason}))
	}
	for _, p := range [][2]string{{"state", l.State}, {"socket.path", l.Socket.Path}} {
		if !filepath.IsAbs(p[1]) {
			fail(p[0], p[1], "not an absolute path")
		}
	}
	// sun_path of Linux's sockaddr_un holds 108 bytes with the NUL.
	if len(l.Socket.Path) > 107 {
		fail("socket.path", l.Socket.Path, "longer than a socket's path can be (107 bytes)")
	}
	component := func(kind, nameKey, name string, run Run, s core.Settings, infos map[string]core.Info) core.Settings {
		info, builtIn := infos[name]
		_, isPlugin := l.Plugins[name]
		if !builtIn && !isPlugin {
			reason := notOneOf(name, slices.Sorted(maps.Keys(infos))) + "; a plugin needs an entry under plugins"
			fail(kind+"."+nameKey, name, reason)
			return s
		}
		if run == RunInProcess && !builtIn {
			fail(kind+".run", string(run), name+" is not built in; use "+string(RunPlugin))
		}
		if run == RunPlugin {
			p, ok := l.Plugins[name]
			switch key := join("plugins", name); {
			case !ok:
				fail(key, "", "missing: "+kind+".run is plugin; give the sum of "+p.Binary(name)+", as in {plugins: {"+name+": {sha256: [\"...\"]}}}")
			case len(p.SHA256) == 0 && !p.AllowUnpinned:
				fail(key+".sha256", "", "missing; give the sum that sha256sum "+p.Binary(name)+" prints, or allow_unpinned: true")
			case !filepath.IsAbs(p.Binary(name)):
				fail(key+".path", p.Path, "not an absolute path")
			}
		}
		if !builtIn { // the plugin checks its own settings when it is opened
			return s
		}
		s, err := CheckSettings(kind+".settings", s, info.Settings)
		for _, e := range flatten(err) {
			var f *core.FieldError
			if errors.As(e, &f) {
				e = l.at(f.Path, e)
			}
			errs = append(errs, e)
		}
		return s
	}
	l.Backend.Settings = component("backend", "driver", l.Backend.Driver, l.Backend.Run, l.Backend.Settings, known.Backends)
	if l.Hypervisor.Adapter != NoAdapter {
		l.Hypervisor.Settings = component("hypervisor", "adapter", l.Hypervisor.Adapter, l.Hypervisor.Run, l.Hypervisor.Settings, known.Adapters)
	} else if len(l.Hypervisor.Settings) > 0 {
		fail("hypervisor.settings", "", "there is no adapter that they could be for")
	}
	return errors.Join(errs...)
}

// at puts the origin of key before err.
func (l *Loaded) at(key string, err error) error {
	for _, o := range l.Origins {
		if o.Key == key && o.From != builtIn {
			return fmt.Errorf("%s: %w", o.From, err)
		}
	}
	return err
}

// flatten takes a joined error apart.
func flatten(err error) []error {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		return joined.Unwrap()
	}
	if err == nil {
		return nil
	}
	return []error{err}
}
