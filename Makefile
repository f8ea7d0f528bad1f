# make check is what CI runs, and what to run before each commit.

GO          ?= go
STATICCHECK ?= honnef.co/go/tools/cmd/staticcheck@v0.8.2
GOVULNCHECK ?= golang.org/x/vuln/cmd/govulncheck@v1.9.0
VERSION     ?= $(shell git describe --tags --always --dirty 2>/dev/null)

.PHONY: build check fmt vet staticcheck vuln test race e2e bench fuzz corpus demo docs dist package-test clean

build:
	$(GO) build -trimpath -ldflags "-s -w -X main.version=$(VERSION)" -o postern ./cmd/postern

check: fmt vet staticcheck vuln race

fmt:
	@files=$$(gofmt -l .); if [ -n "$$files" ]; then echo "gofmt would change:"; echo "$$files"; exit 1; fi

vet:
	$(GO) vet ./...

# Both tools are fetched by the module proxy. Where that cannot be reached, their check is left out with a word.
staticcheck:
	@if $(GO) run $(STATICCHECK) -version >/dev/null 2>&1; then $(GO) run $(STATICCHECK) ./...; \
	else echo "staticcheck: skipped, $(STATICCHECK) cannot be fetched"; fi

# govulncheck ends with status 3 when vulnerable code is reached (go run prints it and ends with 1);
# anything else that fails is the database being out of reach.
vuln:
	@$(GO) run $(GOVULNCHECK) ./... >govulncheck.out 2>&1; status=$$?; \
	if grep -q '^exit status 3$$' govulncheck.out; then cat govulncheck.out; rm -f govulncheck.out; exit 1; fi; \
	if [ $$status -ne 0 ]; then echo "govulncheck: skipped, $$(grep -v '^exit status' govulncheck.out | tail -n 1)"; fi; rm -f govulncheck.out

test:
	$(GO) test ./...

race:
	$(GO) test -race -shuffle=on ./...

# Only the tests that drive the built program with other people's mail programs.
e2e:
	$(GO) test -count=1 -run TestE2E -v ./cmd/postern

# Writes docs/reference anew from the code. A test fails where it is not up to date.
docs:
	$(GO) test -count=1 -run '^TestReference$$' ./cmd/postern -update

# Everything that is given out, in dist/. Fetches nfpm and cyclonedx-gomod through the module proxy.
dist:
	deploy/dist.sh

# Installs, runs, updates and purges the deb in a fresh Debian, and the rpm in a root folder. Needs root, debootstrap, systemd-nspawn, rpm, and dist/.
package-test:
	deploy/packaging/test-deb.sh
	deploy/packaging/test-rpm.sh

# Tables of what Postern does beside Dovecot and Postfix, and of the Graph calls of each operation. Takes more than a quarter of an hour; as
# root, with the Debian packages dovecot-imapd, postfix and isync. Parts can be named: make bench PARTS="imap smtp".
bench:
	$(GO) run ./bench $(PARTS)
	$(GO) test -count=1 -run '^TestE2EGraphCalls$$' -v ./cmd/postern

# Each fuzz target for FUZZTIME, one after another. Without a limit Go spends a minute making each new input smaller, in vain where
# sessions run beside the test.
FUZZTIME    ?= 1m
fuzz:
	@for p in $$($(GO) list ./...); do for f in $$($(GO) test -list '^Fuzz' $$p | grep '^Fuzz'); do \
		echo "$$p $$f"; $(GO) test -run '^$$' -fuzz "^$$f\$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 20x -parallel 1 $$p || exit 1; done; done

# Keeps what fuzzing on this machine has found interesting, in testdata/corpus of each package.
corpus:
	$(GO) run ./internal/fuzzcorpus/pack

demo:
	$(GO) run ./cmd/postern demo

clean:
	rm -rf postern govulncheck.out dist
