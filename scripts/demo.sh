#!/bin/bash
# Shows ferrotrace on examples/args, a program that calls hello(i, len) for each
# number on its command line: as a debug build, and as a release build, where the
# compiler has inlined hello.
set -euo pipefail
cd "$(dirname "$0")/.."

title() { printf '\n── %s\n' "$1"; }
# run COMMAND...: says what is run, then runs it.
run() {
	printf '$ %s\n' "$*"
	"$@"
}

target=$PWD/examples/args/target
(cd examples/args && CARGO_TARGET_DIR=$target cargo build -q --offline && CARGO_TARGET_DIR=$target cargo build -q --offline --profile release-debug)
target=examples/args/target

title 'debug build: four calls, with arguments and results'
run bin/ferrotrace trace hello -- $target/debug/args 1 2 3 4

title 'release build with debug info: hello is inlined; what is left of it is shown, what is gone is named'
run bin/ferrotrace trace hello -- $target/release-debug/args 1 2 3 4

title 'why: where hello went, and where its values are'
run bin/ferrotrace explain $target/release-debug/args hello

title 'what to try next'
cat <<EOT
  functions of a program      bin/ferrotrace list $target/debug/args 'args::*'
  how often each is called    bin/ferrotrace count 'args::**' -- $target/debug/args 1 2 3
  how long calls take         bin/ferrotrace latency hello -- $target/debug/args 1 2 3
  a question of your own      bin/ferrotrace run -e 'uprobe:hello { @[args.i > 2] = count(); }' -- $target/debug/args 1 2 3
  a process that runs         bin/ferrotrace trace hello -p PID       (sudo, if it is not yours)
  every process of a file     sudo bin/ferrotrace trace hello -b $target/debug/args
  for scripts                 bin/ferrotrace trace hello -o json -- $target/debug/args 1
  what this machine can do    bin/ferrotrace doctor
  an example and all flags    bin/ferrotrace help trace
EOT
