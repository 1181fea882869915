#!/bin/bash
# Runs every fuzz target of the project for a while: fuzz.sh [TIME], 20s.
set -euo pipefail
cd "$(dirname "$0")/.."
time=${1:-20s}

grep -rEl --include='*_test.go' '^func Fuzz' cmd internal | xargs -n1 dirname | sort -u | while read -r dir; do
	grep -Eho '^func Fuzz[A-Za-z0-9_]*' "$dir"/*_test.go | sed 's/^func //' | while read -r target; do
		echo "== $dir $target"
		go test -run '^$' -fuzz "^$target\$" -fuzztime "$time" "./$dir" </dev/null
	done
done
