// Package coretest has a backend and an adapter in memory, which do what core's
// interfaces promise, and fail in every way a test asks for.
package coretest
