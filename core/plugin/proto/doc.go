// Package pb is the wire form of the two contracts, protocol version 0. Only
// core/plugin uses it: drivers and adapters see the types of core.
//
// Rules for changing the .proto files while the version is 0: numbers of
// removed fields are reserved; the zero value of every field is the closed or
// the refused one; whatever can change a verdict belongs to a core.Feature, so
// that a plugin which does not know it is refused by name.
package pb

//go:generate go run github.com/bufbuild/buf/cmd/buf@v1.75.0 lint
//go:generate go run github.com/bufbuild/buf/cmd/buf@v1.75.0 generate
//go:generate sh -c "sha256sum *.proto *.pb.go buf.gen.yaml >generated.sum"
