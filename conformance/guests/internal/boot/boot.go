// Package boot is what a guest's image and its first program agree on.
package boot

const (
	// ModuleLists is a folder of lists of module files, one a line, in the
	// order to load them; the lists are read in the order of their names.
	ModuleLists = "/etc/modules-load"
	// ConfigParameter names the word of the kernel command line that holds an
	// encoded probe.Config.
	ConfigParameter = "guest.config"
	// ControlDevice is the serial line to the test; the first one is the
	// kernel's console.
	ControlDevice = "/dev/ttyS1"
	// ExitMarker precedes the exit status of the program that Config.Run names.
	ExitMarker = "guestinit: exit status "
)
