// Package stock is a model of the vmops plugin that CloudStack leaves in dom0:
// the calls, the answers, the state files, and what it gets wrong. It enforces
// nothing; it keeps what the real one would have in its tables, so that a test
// can ask what would pass.
//
// A test binary stands in for the plugin: its TestMain hands over to Main when
// Enabled says so, and xapi.Host.Plugins names the binary.
package stock
