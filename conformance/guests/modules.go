package guests

import (
	"bytes"
	"debug/elf"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/ringwall/ringwall/core"
)

// moduleIndex finds modules of a kernel by name. A package does not carry
// modules.dep, which depmod makes at installation; the modules themselves
// name what they need.
type moduleIndex struct {
	root    string            // Kernel.Modules
	paths   map[string]string // name -> file
	builtin map[string]bool
}

func indexModules(k Kernel) (*moduleIndex, error) {
	x := &moduleIndex{root: k.Modules, paths: map[string]string{}, builtin: map[string]bool{}}
	err := filepath.WalkDir(k.Modules, func(path string, _ fs.DirEntry, err error) error {
		if err == nil && strings.HasSuffix(path, ".ko") {
			x.paths[moduleName(path)] = path
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read the kernel's modules: %w", err)
	}
	list, err := os.ReadFile(filepath.Join(k.Modules, "modules.builtin"))
	if err != nil {
		return nil, err
	}
	for path := range strings.FieldsSeq(string(list)) {
		x.builtin[moduleName(path)] = true
	}
	return x, nil
}

// moduleName is how the kernel spells it: files use - and _ as they please.
func moduleName(path string) string {
	return strings.ReplaceAll(strings.TrimSuffix(filepath.Base(path), ".ko"), "-", "_")
}

// closure lists the files of the modules and of all they need, in the order
// to load them.
func (x *moduleIndex) closure(names []string) ([]string, error) {
	var files []string
	done := map[string]bool{}
	var visit func(name string) error
	visit = func(name string) error {
		name = moduleName(name)
		if done[name] || x.builtin[name] {
			return nil
		}
		done[name] = true
		path, ok := x.paths[name]
		if !ok {
			return fmt.Errorf("the guest kernel has no module %s: %w", name, core.ErrNotFound)
		}
		needs, err := moduleNeeds(path)
		if err != nil {
			return err
		}
		for _, n := range needs {
			if err := visit(n); err != nil {
				return fmt.Errorf("needed by %s: %w", name, err)
			}
		}
		files = append(files, path)
		return nil
	}
	for _, n := range names {
		if err := visit(n); err != nil {
			return nil, err
		}
	}
	return files, nil
}

// moduleNeeds reads "depends=" of a module's .modinfo.
func moduleNeeds(path string) ([]string, error) {
	f, err := elf.Open(path)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	defer f.Close()
	section := f.Section(".modinfo")
	if section == nil {
		return nil, fmt.Errorf("%s has no .modinfo: %w", path, core.ErrInvalid)
	}
	info, err := section.Data()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	for field := range bytes.SplitSeq(info, []byte{0}) {
		if list, ok := bytes.CutPrefix(field, []byte("depends=")); ok && len(list) > 0 {
			return strings.Split(string(list), ","), nil
		}
	}
	return nil, nil
}
