# Hozo: every way to build, run and check it. `make` alone lists them.
SHELL := /bin/bash
TOOLS := $(CURDIR)/.tools
GOLANGCI := $(TOOLS)/golangci-lint
GOFUMPT := $(TOOLS)/gofumpt
GOLANGCI_VERSION := v2.15.0
GOFUMPT_VERSION := v0.12.0

.DEFAULT_GOAL := help
.PHONY: help build demo test check fmt vet lint tidy fuzz bench clean deps

help: ## list the targets
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

build: ## build bin/hozo
	CGO_ENABLED=0 go build -o bin/hozo ./cmd/hozo # static, so that it runs on every host it deploys itself to

demo: build ## run the firehose example and check its account; EVENTS=FILE-or-URL feeds a real GH Archive hour
	go run ./examples/firehose/demo -hozo bin/hozo $(if $(EVENTS),-events '$(EVENTS)')

deps: ## install what the tests need on a fresh Debian machine: a C compiler (race detector), Supervisor (to compare with)
	@internal/testkit/deps.sh

test: export GORACE := atexit_sleep_ms=0# a program with the race detector sleeps for a second when it ends, by default
# Vet is a target of its own, and a package takes minutes on a slow machine.
test: deps ## run every test, with the race detector
	go test -race -shuffle=on -vet=off -timeout 20m ./...
	cd bench/messaging && go test -race -short -vet=off -timeout 5m ./...

check: fmt vet lint tidy test ## everything that CI checks

fmt: $(GOFUMPT) ## fail on files that gofumpt would change
	@out=$$($(GOFUMPT) -l .); if [ -n "$$out" ]; then echo "not gofumpt'ed (run .tools/gofumpt -w .):"; echo "$$out"; exit 1; fi

vet: ## go vet
	go vet ./...
	cd bench/messaging && go vet ./...
	cd bench/tasks && go vet ./...

lint: $(GOLANGCI) ## golangci-lint
	$(GOLANGCI) run ./...
	cd bench/messaging && $(GOLANGCI) run ./...
	cd bench/tasks && $(GOLANGCI) run ./...

tidy: ## fail when go.mod is not tidy
	go mod tidy -diff
	cd bench/messaging && go mod tidy -diff
	cd bench/tasks && go mod tidy -diff

fuzz: ## run each fuzz target for a minute
	@set -e; for pkg in $$(grep -rl --include='*_test.go' '^func Fuzz' . | xargs -n1 dirname | sort -u); do \
		for target in $$(grep -rhoE --include='*_test.go' '^func Fuzz[A-Za-z0-9_]+' $$pkg | sed 's/func //' | sort -u); do \
			go test -run '^$$' -fuzz "^$$target$$" -fuzztime 1m ./$$pkg; done; done

bench: ## compare with peers: make bench AREA=e2e
	go run ./bench $(or $(AREA),e2e) -quick

clean: ## remove what was built
	rm -rf bin $(TOOLS) examples/*/bin

$(GOLANGCI):
	GOBIN=$(TOOLS) go install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(GOLANGCI_VERSION)

$(GOFUMPT):
	GOBIN=$(TOOLS) go install mvdan.cc/gofumpt@$(GOFUMPT_VERSION)
