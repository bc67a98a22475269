package config

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/ringwall/ringwall/core"
)

// Class is a class of hosts that config makes alike: a cluster, or one entry
// of hosts in it.
type Class struct {
	Cluster string `json:"cluster,omitempty"`
	Host    string `json:"host,omitempty"` // entry of hosts; empty = any other member
	// Backend and Hypervisor are zero when Errors tell why they cannot be told.
	Backend    Component `json:"backend"`
	Hypervisor Component `json:"hypervisor"`
	Errors     []string  `json:"errors,omitempty"`
	Warnings   []string  `json:"warnings,omitempty"`
}

// Component is the driver or adapter that a class of hosts uses.
type Component struct {
	Name   string        `json:"name"`
	Run    Run           `json:"run"`
	Plugin *PluginBinary `json:"plugin,omitempty"`
}

// PluginBinary is a plugin's binary and what became of its check on this machine.
type PluginBinary struct {
	Path   string   `json:"path"`
	SHA256 string   `json:"sha256,omitempty"` // of the file on this machine; empty = it is not here
	Pins   []string `json:"pins,omitempty"`
	Status string   `json:"status"` // pinned, unpinned, mismatch, absent
}

// What can be said of a plugin's binary.
const (
	PluginPinned   = "pinned"   // its sum is one of the pins
	PluginUnpinned = "unpinned" // no pins, and allow_unpinned is set
	PluginMismatch = "mismatch" // its sum is none of the pins
	PluginAbsent   = "absent"   // not on this machine
)

// Check resolves every class of hosts in the files, without this machine's
// environment and flags. The error is about the files as such; what is wrong
// with a class is in its Errors.
func Check(path string, known Known) ([]Class, error) {
	name := path
	if name == "" {
		name = DefaultPath
	}
	files, err := readFiles(name, path == "")
	if err != nil {
		return nil, err
	}
	var classes []Class
	for _, c := range clusterNames(files) {
		classes = append(classes, checkClass(files, c, "", known))
	}
	for _, h := range hostPatterns(files) {
		cluster, err := chooseCluster(files, h, h, "")
		if err != nil {
			classes = append(classes, Class{Host: h, Errors: lines(err)})
			continue
		}
		classes = append(classes, checkClass(files, cluster, h, known))
	}
	if len(classes) == 0 {
		classes = append(classes, checkClass(files, "", "", known))
	}
	slices.SortStableFunc(classes, func(a, b Class) int { return strings.Compare(a.Cluster, b.Cluster) })
	return classes, nil
}

func checkClass(files []file, cluster, host string, known Known) Class {
	c := Class{Cluster: cluster, Host: host}
	l, err := resolve(fileLayers(files, cluster, host), known)
	if err != nil {
		c.Errors = lines(err)
	}
	if l == nil {
		return c
	}
	c.Backend = l.component(l.Backend.Driver, l.Backend.Run)
	c.Hypervisor = Component{Name: NoAdapter}
	if l.Hypervisor.Adapter != NoAdapter {
		c.Hypervisor = l.component(l.Hypervisor.Adapter, l.Hypervisor.Run)
	}
	for _, x := range []Component{c.Backend, c.Hypervisor} {
		if x.Plugin != nil && x.Plugin.Status == PluginMismatch {
			c.Errors = append(c.Errors, fmt.Sprintf("plugins.%s.sha256: %s has the sum %s, which is none of the pins", x.Name, x.Plugin.Path, x.Plugin.SHA256))
		}
	}
	if len(l.Bridges) == 0 {
		c.Warnings = append(c.Warnings, "bridges: none, so nothing is enforced")
	}
	if !l.Enforce {
		c.Warnings = append(c.Warnings, "enforce: false, so everything passes and is only counted")
	}
	return c
}

func (l *Loaded) component(name string, run Run) Component {
	c := Component{Name: name, Run: run}
	if run == RunPlugin {
		c.Plugin = l.Plugins[name].check(name)
	}
	return c
}

func (p Plugin) check(name string) *PluginBinary {
	out := &PluginBinary{Path: p.Binary(name), Pins: p.SHA256}
	sum, err := sumFile(out.Path)
	switch {
	case err != nil:
		out.Status = PluginAbsent
	case slices.ContainsFunc(p.SHA256, func(pin string) bool { return strings.EqualFold(pin, sum) }):
		out.Status = PluginPinned
	case len(p.SHA256) == 0 && p.AllowUnpinned:
		out.Status = PluginUnpinned
	default:
		out.Status = PluginMismatch
	}
	out.SHA256 = sum
	return out
}

func sumFile(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		return "", errors.Join(err, fs.ErrInvalid)
	}
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// lines takes a joined error apart, one line each.
func lines(err error) (out []string) {
	suffix := ": " + core.ErrInvalid.Error()
	for line := range strings.SplitSeq(err.Error(), "\n") {
		out = append(out, strings.TrimSuffix(line, suffix))
	}
	return out
}
