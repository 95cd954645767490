# baton: OCF resource agents that hand a storage service from one node to the other.
# `make` alone lists the targets.

AGENTS      := drbd mfsmaster nfsd vip
BUILD       := build
BINARIES    := $(addprefix $(BUILD)/,$(AGENTS))
SOURCES     := $(shell find agents metadata ocf -name '*.go' ! -name '*_test.go') go.mod go.sum
TOOLS       := $(CURDIR)/$(BUILD)/tools
GO          ?= go
GOARCH      ?= $(shell $(GO) env GOARCH 2>/dev/null)
VERSION     := $(shell git describe --tags --always --dirty 2>/dev/null || echo unreleased)
LDFLAGS     := -s -w -X baton/ocf.version=$(VERSION)
# One static binary an agent: no libc, no loader, the same file on Debian and RHEL families.
GOBUILD     := CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)'

DESTDIR     ?=
OCF_ROOT    ?= /usr/lib/ocf
AGENT_DIR   := $(OCF_ROOT)/resource.d/baton
DOC_DIR     ?= /usr/share/doc/baton
# heartbeat's configuration. Links are made when it is given, or when this machine has heartbeat.
HA_D        ?= $(if $(DESTDIR),,$(wildcard /etc/ha.d))

GOLANGCI    := v2.15.0
GOFUMPT     := v0.12.0

# heartbeat's own scripts have the same names, and a link in resource.d comes before /etc/init.d. A
# heartbeat that runs would stop its service with an agent that did not start it, without the argument
# that the agent needs, and would reboot the node over the file system that is still in use.
define STANDS
	@[ -z "$(HA_D)" ] || for a in $(AGENTS); do \
	  link=$(DESTDIR)$(HA_D)/resource.d/$$a; init=$(DESTDIR)/etc/init.d/$$a; \
	  case "$$(readlink $$link)" in */resource.d/baton/$$a) continue;; esac; \
	  if [ -e $$link ] || [ -L $$link ]; then stands=$$link; do="move that file away"; \
	  elif [ -e $$init ] && [ ! -e $(DESTDIR)$(HA_D)/baton-$$a.conf ] && sed 's/\#.*//' $(DESTDIR)$(HA_D)/haresources 2>/dev/null | grep -qE "[[:blank:]]$$a([[:blank:]]|\$$)"; then \
	    stands=$$init; do="change the line in $(DESTDIR)$(HA_D)/haresources, which means that file by '$$a'"; \
	  else continue; fi; \
	  echo "$$stands is not baton's, and a link to baton's $$a would take its place. Nothing was changed." \
	    "Stop heartbeat on both nodes, $$do (docs/heartbeat.md says what stands for what), and run this again; HA_D= installs without links." >&2; \
	  exit 1; \
	done
endef

.DEFAULT_GOAL := help
.PHONY: help build dist install uninstall deps test test-quick test-real test-lab demo bench lint fmt metadata clean $(AGENTS)

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: $(AGENTS) ## build the agents into build/

# What install takes. Where Go is at hand it is as new as its sources; where it is not (sudo's PATH
# seldom has /usr/local/go/bin), what was built before is good.
$(BINARIES): $(if $(shell command -v $(GO) 2>/dev/null),$(SOURCES))

$(AGENTS) $(BINARIES):
	@command -v $(GO) >/dev/null || { echo "$(@F) is to be built, and there is no $(GO) in PATH. Run 'make build' as a user who has Go, then this again." >&2; exit 1; }
	@mkdir -p $(BUILD)
	GOARCH=$(GOARCH) $(GOBUILD) -o $(BUILD)/$(@F) ./agents/$(@F)

dist: ## build release archives for amd64 and arm64 into build/dist/
	@for arch in amd64 arm64; do \
	  root=$(BUILD)/dist/baton-$(VERSION)-linux-$$arch; rm -rf $$root $(BUILD)/dist/bin-$$arch; \
	  $(MAKE) --no-print-directory GOARCH=$$arch BUILD=$(BUILD)/dist/bin-$$arch install DESTDIR=$$root HA_D= || exit 1; \
	  tar -C $$root --owner=0 --group=0 -czf $$root.tar.gz usr || exit 1; echo "made $$root.tar.gz"; \
	done

install: $(BINARIES) ## install the agents (DESTDIR=…, OCF_ROOT=/usr/lib/ocf, HA_D=/etc/ha.d for heartbeat)
	$(STANDS)
	install -d $(DESTDIR)$(AGENT_DIR) $(DESTDIR)$(DOC_DIR)
	for a in $(AGENTS); do install -m 0755 $(BUILD)/$$a $(DESTDIR)$(AGENT_DIR)/$$a || exit 1; done
	cp -R README.md LICENSE CHANGELOG.md docs crm-examples $(DESTDIR)$(DOC_DIR)/
	if [ -n "$(HA_D)" ]; then \
	  install -d $(DESTDIR)$(HA_D)/resource.d && \
	  for a in $(AGENTS); do ln -sfn $(AGENT_DIR)/$$a $(DESTDIR)$(HA_D)/resource.d/$$a || exit 1; done; \
	fi
	@# A power cut soon after would leave empty files, and an empty agent "succeeds" in everything.
	[ -n "$(DESTDIR)" ] || sync

uninstall: ## remove what install put there
	for a in $(AGENTS); do \
	  rm -f $(DESTDIR)$(AGENT_DIR)/$$a; \
	  link=$(DESTDIR)$(HA_D)/resource.d/$$a; \
	  if [ -n "$(HA_D)" ] && [ "$$(readlink $$link)" = $(AGENT_DIR)/$$a ]; then rm -f $$link; fi; \
	done
	rmdir $(DESTDIR)$(AGENT_DIR) 2>/dev/null || true

deps: ## install what the tests need (Debian packages, by apt-get)
	sh tests/install-packages

test: deps lint test-quick test-real ## the whole proof: unit tests, real parts, every agent on real machines (under 45 minutes)
	$(GO) test -tags lab -timeout 60m -count 1 -v -run '^TestCore' ./tests/lab/

test-quick: ## everything that needs no machine (under 3 minutes)
	GORACE=atexit_sleep_ms=0 CGO_ENABLED=1 $(GO) test -race -timeout 5m ./...

test-real: build ## the agents against real parts on this machine: ocf-tester, MooseFS, network namespaces
	$(GO) test -tags real -timeout 15m -count 1 ./tests/...

test-lab: deps build ## the full matrix of faults on real machines (hours)
	$(GO) test -tags lab -timeout 6h -count 1 -v ./tests/lab/

demo: ## see it work: three machines, a move, a power cut, and what the client noticed
	$(GO) run ./tests/lab/cmd/demo

bench: deps ## what a monitor costs, beside the shell agents, as ratios of one run
	$(GO) test -run '^$$' -bench . -benchtime 1x -count 1 ./tests/bench/...
	$(GO) test -tags lab -run '^$$' -bench . -benchtime 1x -count 1 -timeout 30m ./tests/lab/

lint: $(TOOLS)/golangci-lint $(TOOLS)/gofumpt ## formatting, vet, lint and the import rules
	@bad=$$($(TOOLS)/gofumpt -l agents metadata ocf tests); if [ -n "$$bad" ]; then echo "not gofumpt'ed (make fmt): $$bad"; exit 1; fi
	$(TOOLS)/golangci-lint run --build-tags lab,real --timeout 10m ./...

fmt: $(TOOLS)/gofumpt ## format the code
	$(TOOLS)/gofumpt -w agents metadata ocf tests

$(TOOLS)/golangci-lint:
	GOBIN=$(TOOLS) $(GO) install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(GOLANGCI)

$(TOOLS)/gofumpt:
	GOBIN=$(TOOLS) $(GO) install mvdan.cc/gofumpt@$(GOFUMPT)

metadata: build ## write metadata/*.xml from the declarations
	for a in $(AGENTS); do $(BUILD)/$$a meta-data > metadata/$$a.xml || exit 1; done

clean: ## remove build/ (the machines' images stay in the cache directory)
	rm -rf $(BUILD)
