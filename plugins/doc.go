// Package plugins holds one main package for every plugin binary.
package plugins
