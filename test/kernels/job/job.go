// Package job is what the host asks of the guest, and how the guest answers on its
// console.
package job

// Param is the kernel parameter that names the job's file.
const Param = "ferrotrace.job"

// Share is the tag of the host's root directory.
const Share = "host"

// Job is a list of test binaries to be run one after the other.
type Job struct {
	Env   []string
	Tests []Test
}

// Test is one test binary; paths are the host's.
type Test struct {
	Package string
	Binary  string
	Dir     string
	Args    []string
}

// Lines of the console that are not a test's output.
const (
	Begin = "@@@ begin " // and the package
	End   = "@@@ end "   // and "ok" or what went wrong
	Fatal = "@@@ fatal " // and why the guest gave up
	Done  = "@@@ done"
)
