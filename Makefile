# ferrotrace: make demo shows it, make test tests it, make build builds it.

STATICCHECK := v0.8.2
VERSION     := $(shell git describe --tags --always --dirty 2>/dev/null || echo devel)
FUZZTIME    ?= 20s

# What scripts/setup.sh put in place is found without a new login.
export PATH := $(CURDIR)/.tools/go/bin:$(PATH):/usr/local/go/bin:$(HOME)/.cargo/bin
export CGO_ENABLED := 0

.PHONY: build setup test demo fuzz bench soak fixtures matrix test-kernels clean

build:
	go build -trimpath -ldflags '-s -w -X ferrotrace/internal/cli.version=$(VERSION)' -o bin/ferrotrace ./cmd/ferrotrace

setup:
	@scripts/setup.sh

test: setup
	@unformatted=$$(go list -f '{{.Dir}}' ./... | xargs gofmt -l | sort -u); \
	 if [ -n "$$unformatted" ]; then echo "gofmt is due in:"; echo "$$unformatted"; exit 1; fi
	go vet ./...
	go run honnef.co/go/tools/cmd/staticcheck@$(STATICCHECK) ./...
	go test -timeout 20m ./...

demo: setup build
	@scripts/demo.sh

# Each fuzz target for FUZZTIME.
fuzz: setup
	@scripts/fuzz.sh $(FUZZTIME)

# Every fixture crate in every profile; tests build what they need by themselves.
fixtures: setup
	FERROTRACE_FIXTURES=all go test -count=1 -timeout 60m -run TestBuildAll -v ./internal/fixture

# Every value × every build × every Rust compiler at hand × both runtimes, held against
# what {:?} prints: right, missing, wrong. Fails if one is wrong. Needs root. Debian 12's
# rustc 1.63 and rustup's nightly are among the compilers if they are there.
matrix: setup
	@tables=$$(mktemp); FERROTRACE_MATRIX=$$tables go test -count=1 -timeout 120m -run TestMatrix ./internal/oracle; \
	 status=$$?; cat $$tables; rm $$tables; exit $$status

# The tests that need root, in virtual machines with older kernels.
test-kernels: setup build
	test/kernels/run

clean:
	rm -rf bin .tools examples/*/target testdata/fixtures/target

# Side-by-side measurements. What is read is a server of public crates, built on the first
# run; FERROTRACE_BENCH_FILE names another program.
bench: setup
	@[ -n "$(FERROTRACE_BENCH_FILE)" ] || cargo build --quiet --release --manifest-path bench/subject/Cargo.toml --target-dir bench/subject/target || \
	 echo "skipped: the server of public crates could not be built; a small program is read in its place"
	go test -run '^$$' -bench . -benchtime 3x ./bench

# What takes long: a process stopped, changed and let go again and again, and its tracer
# killed; cargo with all of its functions traced; hundreds of random programs held
# against what they print.
soak: setup
	FERROTRACE_SOAK=1 go test -count=1 -timeout 60m ./internal/runtime/user/...
	FERROTRACE_SOAK=1 go test -count=1 -timeout 60m -run TestWhole ./internal/oracle
	FERROTRACE_RANDOM=100 go test -count=1 -timeout 120m -run TestRandom ./internal/oracle
