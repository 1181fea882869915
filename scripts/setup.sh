#!/bin/bash
# Installs what building and testing need and this machine lacks: Go, Rust, a C
# compiler, make. On Debian and its like by package. Quick when all is there.
set -euo pipefail
cd "$(dirname "$0")/.."

export PATH="$PWD/.tools/go/bin:$PATH:/usr/local/go/bin:$HOME/.cargo/bin"

have() { command -v "$1" >/dev/null 2>&1; }

fail() {
	echo "setup: $1" >&2
	echo "  hint: $2" >&2
	exit 1
}

# install PACKAGE...
install() {
	have apt-get || fail "missing: $*" "install them by your system's own means, then run this again"
	local as_root=()
	if [ "$(id -u)" != 0 ]; then
		have sudo || fail "missing: $*" "as root: apt-get install $*"
		as_root=(sudo)
	fi
	echo "setup: installing $*" >&2
	export DEBIAN_FRONTEND=noninteractive
	# Package lists may be absent (a fresh container) or stale.
	"${as_root[@]}" apt-get -q update >&2 || echo "setup: apt-get update failed; going on with the lists that are there" >&2
	"${as_root[@]}" apt-get -q install -y --no-install-recommends "$@" >&2 ||
		fail "could not install $*" "see apt-get's message above"
}

# The minor version of Go, 0 without Go: go1.26.3 → 26.
go_minor() {
	local v
	v=$(GOTOOLCHAIN=local go env GOVERSION 2>/dev/null) || v=
	v=${v#go1.}
	v=${v%%[!0-9]*}
	echo "${v:-0}"
}

packages=()
have go || packages+=(golang-go ca-certificates)
have cargo && have rustc || packages+=(cargo rustc)
# rustc links with cc; the C library's headers are for tests that compile C.
have cc || packages+=(gcc)
[ -e /usr/include/stdlib.h ] || packages+=(libc6-dev)
have make || packages+=(make)
have git || packages+=(git)
[ ${#packages[@]} = 0 ] || install "${packages[@]}"

# Go from 1.21 on fetches the toolchain that go.mod asks for by itself. An older
# one can be told to: toolchains are modules.
wanted=$(sed -n 's/^go //p' go.mod)
minor=$(go_minor)
wanted_minor=${wanted#1.}
wanted_minor=${wanted_minor%%.*}
if [ "$minor" -lt "$wanted_minor" ] && { [ "$minor" -lt 21 ] || [ "$(go env GOTOOLCHAIN)" = local ]; }; then
	echo "setup: fetching go$wanted" >&2
	module="golang.org/toolchain@v0.0.1-go$wanted.linux-amd64"
	scratch=$(mktemp -d)
	trap 'rm -rf "$scratch"' EXIT
	(cd "$scratch" && echo 'module scratch' >go.mod && GOFLAGS=-mod=mod GOTOOLCHAIN=local go mod download "$module") ||
		fail "could not fetch go$wanted" "install Go $wanted or newer by hand"
	mkdir -p .tools
	rm -rf .tools/go .tools/go.part
	cp -r "$(go env GOMODCACHE)/$module" .tools/go.part
	# The module cache is read-only; a module's files lose their x bits, and it
	# can't hold another module's go.mod under that name.
	chmod -R u+w .tools/go.part
	find .tools/go.part -name _go.mod -execdir mv {} go.mod \;
	chmod +x .tools/go.part/bin/* .tools/go.part/pkg/tool/*/*
	mv .tools/go.part .tools/go
fi

go version >/dev/null || fail "Go does not run" "go.mod asks for Go $wanted"
