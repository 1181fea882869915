// Command ferrotrace shows what a running Rust program does, function by function.
package main

import (
	"os"

	"ferrotrace/internal/cli"
)

func main() { os.Exit(cli.Main(os.Args[1:]...)) }
