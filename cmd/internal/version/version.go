// Package version says which build this is.
package version

import "runtime/debug"

// number is set by the build: -ldflags "-X .../version.number=1.2.3".
var number string

// String is the version that the build was given, else the commit that it was
// made from.
func String() string {
	if number != "" {
		return number
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	commit, dirty := "", ""
	for _, s := range info.Settings {
		switch {
		case s.Key == "vcs.revision":
			commit = s.Value[:min(12, len(s.Value))]
		case s.Key == "vcs.modified" && s.Value == "true":
			dirty = "+changes"
		}
	}
	if commit == "" {
		return "development"
	}
	return "development-" + commit + dirty
}
