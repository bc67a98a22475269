# Ringwall. `make help` lists what there is.
SHELL   := /bin/bash
export PATH := $(PATH):/usr/local/go/bin
export GOFLAGS := -buildvcs=false
BIN     := bin
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
LDFLAGS := -s -w -X github.com/ringwall/ringwall/cmd/internal/version.number=$(VERSION)

# Tools, pinned. They run by `go run`, so nothing has to be installed.
GOLANGCI    := github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0
STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.2

# How many generated policies `make test` plays, and from which seed (0 = of
# the day; a failure prints it).
POLICIES ?= 200
SEED     ?= 1

.PHONY: help build demo test certify lint generate bench clean

help: ## list the targets
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

build: ## build all binaries, static, into bin/
	@mkdir -p $(BIN)
	CGO_ENABLED=0 go build -trimpath -ldflags '$(LDFLAGS)' -o $(BIN)/ ./cmd/... ./plugins/...
	CGO_ENABLED=0 go build -trimpath -o $(BIN)/ringwall-demo ./conformance/demo

demo: ## install what is missing, build, and show the main job on real packets
	@.ci/setup build
	@$(MAKE) --no-print-directory build
	@$(BIN)/ringwall-demo

test: ## install what is missing, run the tests: unit, scenarios, a seeded share of the generated ones
	@.ci/setup test
	@CONFORMANCE_POLICIES=$(POLICIES) CONFORMANCE_SEED=$(SEED) .ci/test

certify: ## run everything: more generated policies, the native datapath in a guest, fuzzing
	@.ci/setup test
	@CERTIFY=1 CONFORMANCE_POLICIES=2000 CONFORMANCE_SEED=0 .ci/test

lint: ## gofmt, go vet, staticcheck, golangci-lint
	@out=$$(gofmt -l $$(git ls-files '*.go')); [ -z "$$out" ] || { echo "not gofmt-ed:"; echo "$$out"; exit 1; }
	go vet ./...
	go run $(STATICCHECK) ./...
	go run $(GOLANGCI) run ./...

generate: ## regenerate what is generated
	go generate ./...

bench: ## measure the driver and the packet path, ratios from one run
	@.ci/setup test
	go test -run '^$$' -bench . -benchmem ./drivers/... ./core/... ./conformance/...

clean: ## remove what the build made
	rm -rf $(BIN)
