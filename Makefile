# shmts: `make` alone lists the targets.

GO      ?= go
CC      ?= gcc
PREFIX  ?= /usr/local
DESTDIR ?=
VERSION := 1.0.0-rc1
BIN     := $(CURDIR)/bin
TOOLS   := $(CURDIR)/.cache/tools

STATICCHECK         := $(TOOLS)/staticcheck
STATICCHECK_VERSION := v0.8.2

# The daemon and its tools need no cgo; grpcnotrace keeps the linker's dead code elimination on.
GOBUILD := CGO_ENABLED=0 $(GO) build -trimpath -tags grpcnotrace -ldflags '-s -w -X main.version=$(VERSION)'
CFLAGS  := -std=c11 -O2 -g -Wall -Wextra -Wpedantic -Wconversion -Wshadow -Werror

.DEFAULT_GOAL := help
.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: build
build: ## build shmtsd, shmctl and the examples into bin/
	@mkdir -p $(BIN)
	$(GOBUILD) -o $(BIN)/ ./cmd/shmtsd ./cmd/shmctl ./examples/httpservice ./examples/orchestrator
	$(CC) $(CFLAGS) -Icshim -o $(BIN)/udpfwd cshim/examples/udpfwd.c -pthread
	$(CC) $(CFLAGS) -Icshim -o $(BIN)/udpgen cshim/examples/udpgen.c -pthread
	$(CC) $(CFLAGS) -Icshim -o $(BIN)/record bench/c/record.c -pthread

.PHONY: demo
demo: build ## run the whole thing under real load for some seconds and check what it shows (OTLP=http://... for a real collector)
	$(GO) run ./internal/demo -bin $(BIN) $(if $(OTLP),-otlp $(OTLP))

.PHONY: run
run: build ## the same, kept up until ^C, with a word on where to look
	$(GO) run ./internal/demo -bin $(BIN) -keep $(if $(OTLP),-otlp $(OTLP))

.PHONY: test
test: needs ## run every test (some need root, gcc, python3, strace: those say so and are skipped without)
	$(GO) vet ./...
	$(GO) test -timeout 15m ./...
	$(GO) test -timeout 10m -race ./layout ./writer/... ./reader ./internal/source ./internal/query ./internal/server ./internal/webconfig ./internal/tenant ./internal/exemplars ./internal/relabel ./internal/export/...
	$(GO) test -timeout 10m -race -short ./internal/shadow ./internal/archive/column ./internal/archiver
	$(GO) test -timeout 10m -race -short -run 'AsMemory|Beside|Reuse|Together|Late|Seam|Overlap|Failures' ./internal/archive ./internal/history

.PHONY: needs
needs: ## install what the tests use beside Go and gcc, where this user may
	@tools/needs

.PHONY: lint
lint: needs $(STATICCHECK) ## gofmt, vet, staticcheck, C warnings as errors with gcc and clang, in C11 and C++17
	@test -z "$$(gofmt -l .)" || { echo "gofmt would change:"; gofmt -l .; exit 1; }
	$(GO) vet ./...
	$(STATICCHECK) ./...
	@tools/lint-c

$(STATICCHECK):
	@echo "building staticcheck $(STATICCHECK_VERSION) into $(TOOLS)"
	@mkdir -p $(TOOLS)
	GOBIN=$(TOOLS) $(GO) install honnef.co/go/tools/cmd/staticcheck@$(STATICCHECK_VERSION)

.PHONY: bench
bench: build ## measure next to peers and write bench/RESULTS.md (half an hour)
	@tools/needs bench
	$(GO) run ./bench/run

.PHONY: fuzz
FUZZTIME ?= 30s
fuzz: ## fuzz what a hostile segment or a broken archive can say, FUZZTIME (30s) each target
	@for p in ./fuzz ./internal/archive ./internal/archive/column; do for f in $$($(GO) test -list '^Fuzz' $$p | grep '^Fuzz'); do \
		echo "fuzzing $$f for $(FUZZTIME)"; $(GO) test -run '^$$' -fuzz "^$$f$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 1s $$p || exit 1; done; done

.PHONY: peers
peers: build ## build a real OpenTelemetry Collector and Prometheus, pinned, and test against them end to end
	@tools/needs peers
	$(GO) test -tags peers -timeout 45m -v ./internal/e2e/... ./internal/server ./internal/history ./internal/export/remotewrite

.PHONY: vectors
vectors: ## write spec/vectors anew
	$(GO) generate ./spec/...

.PHONY: install
install: build ## install shmtsd, shmctl, the man page, completions, shmts.h and its pkg-config file under PREFIX
	install -d $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(PREFIX)/include $(DESTDIR)$(PREFIX)/lib/pkgconfig $(DESTDIR)$(PREFIX)/share/man/man1
	install -m 755 $(BIN)/shmtsd $(BIN)/shmctl $(DESTDIR)$(PREFIX)/bin/
	install -m 644 cshim/shmts.h $(DESTDIR)$(PREFIX)/include/
	sed -e 's|@PREFIX@|$(PREFIX)|' -e 's|@VERSION@|$(VERSION)|' cshim/shmts.pc.in > $(DESTDIR)$(PREFIX)/lib/pkgconfig/shmts.pc
	$(BIN)/shmctl man > $(DESTDIR)$(PREFIX)/share/man/man1/shmctl.1
	install -d $(DESTDIR)$(PREFIX)/share/bash-completion/completions $(DESTDIR)$(PREFIX)/share/zsh/site-functions $(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d
	$(BIN)/shmctl completion bash > $(DESTDIR)$(PREFIX)/share/bash-completion/completions/shmctl
	$(BIN)/shmctl completion zsh > $(DESTDIR)$(PREFIX)/share/zsh/site-functions/_shmctl
	$(BIN)/shmctl completion fish > $(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d/shmctl.fish

.PHONY: clean
clean: ## remove what was built
	rm -rf $(BIN) .cache
