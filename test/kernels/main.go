// Command kernels runs tests that need root under older kernels, each in a virtual
// machine: see README.md.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"

	"ferrotrace/test/kernels/job"
)

var (
	series  = flag.String("k", "6.1,6.12", "kernel series, separated by commas")
	preempt = flag.String("preempt", "voluntary,full", "preemption modes, separated by commas")
	pattern = flag.String("run", "", "run only tests that match, as go test's -run")
	long    = flag.Bool("v", false, "show all output of the machines")
	limit   = flag.Duration("timeout", 20*time.Minute, "of one machine")
	from    = flag.String("mirror", "", "of Debian's packages; that of the machine if empty")
	cpus    = flag.Int("cpus", 2, "of one machine")
)

// Packages whose tests run unless others are named.
var packages = []string{"./internal/runtime/kernel", "./internal/target", "./internal/codegen", "./internal/cli"}

func main() {
	flag.Parse()
	if flag.NArg() > 0 {
		packages = flag.Args()
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "kernels:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	if err := tools(); err != nil {
		return err
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return err
	}
	cache = filepath.Join(cache, "ferrotrace", "kernels")
	// The guest has a file system of its own at /tmp.
	tmp, err := os.MkdirTemp(mkdir(cache), "run")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	path, err := prepare(ctx, tmp)
	if err != nil {
		return err
	}
	init := filepath.Join(tmp, "init")
	if err := build(ctx, "build", init, "./test/kernels/init"); err != nil {
		return err
	}

	var failed []string
	for _, k := range kernels {
		if !slices.Contains(strings.Split(*series, ","), k.series) {
			continue
		}
		if *from == "" {
			if *from, err = mirror(); err != nil {
				return err
			}
		}
		img, err := k.fetch(cache, *from)
		if err != nil {
			return err
		}
		initramfs, err := img.initramfs(init)
		if err != nil {
			return err
		}
		archive := filepath.Join(tmp, "initramfs-"+k.series)
		if err := os.WriteFile(archive, initramfs, 0o644); err != nil {
			return err
		}
		for _, mode := range strings.Split(*preempt, ",") {
			name := fmt.Sprintf("%s preempt=%s", strings.TrimPrefix(filepath.Base(img.vmlinuz), "vmlinuz-"), mode)
			fmt.Printf("=== %s\n", name)
			if err := boot(ctx, img.vmlinuz, archive, "preempt="+mode+" "+job.Param+"="+path); err != nil {
				if ctx.Err() != nil {
					return ctx.Err()
				}
				fmt.Printf("=== FAIL %s: %v\n", name, err)
				failed = append(failed, name)
			}
		}
	}
	if failed != nil {
		return fmt.Errorf("failed: %s", strings.Join(failed, "; "))
	}
	return nil
}

func mkdir(dir string) string {
	_ = os.MkdirAll(dir, 0o755) // what follows will say
	return dir
}

// tools are what must be installed.
func tools() error {
	var missing []string
	for tool, pkg := range map[string]string{"qemu-system-x86_64": "qemu-system-x86", "apt-get": "apt", "dpkg-deb": "dpkg", "xz": "xz-utils"} {
		if _, err := exec.LookPath(tool); err != nil {
			missing = append(missing, fmt.Sprintf("%s (package %s)", tool, pkg))
		}
	}
	if missing != nil {
		slices.Sort(missing)
		return fmt.Errorf("missing: %s", strings.Join(missing, ", "))
	}
	return nil
}

func build(ctx context.Context, how, out, pkg string) error {
	args := []string{how}
	if how == "test" {
		args = append(args, "-c")
	}
	cmd := exec.CommandContext(ctx, "go", append(args, "-o", out, pkg)...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if b, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go %s %s: %w\n%s", how, pkg, err, b)
	}
	return nil
}

// prepare builds the tests, and writes the job.
func prepare(ctx context.Context, dir string) (path string, err error) {
	out, err := exec.CommandContext(ctx, "go", append([]string{"list", "-f", "{{if or .TestGoFiles .XTestGoFiles}}{{.ImportPath}} {{.Dir}}{{end}}"}, packages...)...).Output()
	if err != nil {
		return "", fmt.Errorf("go list %s: %w", packages, err)
	}
	j := job.Job{Env: environment(os.Environ())}
	for line := range strings.Lines(string(out)) {
		pkg, src, ok := strings.Cut(strings.TrimSpace(line), " ")
		if !ok {
			continue
		}
		t := job.Test{Package: pkg, Dir: src, Binary: filepath.Join(dir, strings.ReplaceAll(pkg, "/", "_")+".test")}
		t.Args = []string{"-test.v", "-test.timeout=" + limit.String()}
		if *pattern != "" {
			t.Args = append(t.Args, "-test.run="+*pattern)
		}
		if err := build(ctx, "test", t.Binary, pkg); err != nil {
			return "", err
		}
		j.Tests = append(j.Tests, t)
	}
	if j.Tests == nil {
		return "", fmt.Errorf("no tests in %s", packages)
	}
	b, err := json.Marshal(j)
	if err != nil {
		return "", err
	}
	path = filepath.Join(dir, "job.json")
	return path, os.WriteFile(path, b, 0o600)
}

// environment is what tests may want to know of the host's: where tools are.
func environment(all []string) (env []string) {
	for _, e := range all {
		name, _, _ := strings.Cut(e, "=")
		switch name {
		case "PATH", "HOME", "LANG", "CARGO_HOME", "RUSTUP_HOME", "RUSTUP_TOOLCHAIN":
			env = append(env, e)
		default:
			if strings.HasPrefix(name, "FERROTRACE_") {
				env = append(env, e)
			}
		}
	}
	return env
}

// initramfs holds init and the modules by which it reaches the host's files.
func (img *image) initramfs(init string) ([]byte, error) {
	program, err := os.ReadFile(init)
	if err != nil {
		return nil, err
	}
	modules, err := img.load("virtio_pci", "9pnet_virtio", "9p", "overlay")
	if err != nil {
		return nil, err
	}
	const dir, exe = 0o040755, 0o100755
	entries := []entry{{"dev", nil, dir}, {"proc", nil, dir}, {"lower", nil, dir}, {"memory", nil, dir}, {"host", nil, dir}, {"modules", nil, dir}, {"init", program, exe}}
	for i, m := range modules {
		entries = append(entries, entry{fmt.Sprintf("modules/%02d", i), m, 0o100644})
	}
	return cpio(entries), nil
}

// boot runs one machine. It is emulated: hardware virtualisation is not always to
// be had inside of virtual machines. Its CPUs take turns in one thread: with a thread
// each, QEMU lets one run into an int3 of the kernel's own patching (tracepoints are
// switched by it) that another has removed already, and the kernel dies of it.
func boot(ctx context.Context, vmlinuz, initramfs, params string) error {
	ctx, cancel := context.WithTimeout(ctx, *limit)
	defer cancel()
	cmd := exec.CommandContext(ctx, "qemu-system-x86_64",
		"-accel", "tcg,thread=single", "-cpu", "max", "-smp", fmt.Sprint(*cpus), "-m", "3072",
		"-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-serial", "stdio",
		"-virtfs", "local,path=/,mount_tag="+job.Share+",security_model=none,readonly=on,multidevs=remap",
		"-kernel", vmlinuz, "-initrd", initramfs,
		"-append", "console=ttyS0 loglevel=5 panic=-1 "+params)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	err = follow(os.Stdout, out, *long)
	if werr := cmd.Wait(); werr != nil {
		err = errors.Join(err, werr)
	}
	if ctx.Err() != nil {
		err = errors.Join(err, fmt.Errorf("not done after %v", *limit))
	}
	return err
}

// trouble is what the kernel says when it has been hurt.
var trouble = regexp.MustCompile(`^\[ *\d+\.\d+\] .*(BUG|WARNING: CPU|Oops|general protection fault|rcu: INFO|blocked for more than|Kernel panic)`)

// Lines of go test -v: which test is at work, what it logs, how it ended.
var (
	working = regexp.MustCompile(`^=== (?:RUN|NAME|CONT) +(\S+)`)
	logged  = regexp.MustCompile(`^ +\S+\.go:\d+: (.*)`)
	result  = regexp.MustCompile(`^ *--- (PASS|FAIL|SKIP): (\S+)`)
)

// maxTail is how many lines are shown of what was said before a crash.
const maxTail = 80

// follow reads a machine's console and prints what matters: how each package's
// tests ended, which were skipped and why, and what those that failed said. With all,
// it prints every line as well.
func follow(w io.Writer, console io.Reader, all bool) error {
	var (
		errs      []error
		lines     []string // of the package
		pkg, test string
		said      = make(map[string][]string) // lines of each test
		last      = make(map[string]string)   // what each test logged last
		count     = make(map[string]int)
		done      bool
	)
	s := bufio.NewScanner(console)
	s.Buffer(nil, 1<<20)
	for s.Scan() {
		line := strings.TrimRight(s.Text(), "\r")
		if all {
			fmt.Fprintln(w, line)
		}
		if trouble.MatchString(line) {
			errs = append(errs, errors.New(line))
		}
		if why, ok := strings.CutPrefix(line, job.Fatal); ok {
			errs = append(errs, errors.New(why))
		}
		done = done || line == job.Done
		if name, ok := strings.CutPrefix(line, job.Begin); ok {
			pkg, lines = name, nil
			test = ""
			clear(count)
			clear(last)
			clear(said)
		} else if how, ok := strings.CutPrefix(line, job.End); ok {
			fmt.Fprintf(w, "%-50s %s: %d passed, %d failed, %d skipped\n", pkg, how, count["PASS"], count["FAIL"], count["SKIP"])
			if how != "ok" {
				errs = append(errs, fmt.Errorf("%s: %s", pkg, how))
				if !all && count["FAIL"] == 0 { // it crashed
					fmt.Fprintln(w, strings.Join(lines[max(0, len(lines)-maxTail):], "\n"))
				}
			}
		} else if m := working.FindStringSubmatch(line); m != nil {
			test = m[1]
		} else if m := logged.FindStringSubmatch(line); m != nil {
			last[test] = m[1]
		} else if m := result.FindStringSubmatch(line); m != nil {
			count[m[1]]++
			switch {
			case m[1] == "SKIP":
				fmt.Fprintf(w, "skipped %s: %s\n", m[2], last[m[2]])
			case m[1] == "FAIL" && !all:
				fmt.Fprintln(w, strings.Join(append(said[m[2]], line), "\n"))
			}
		}
		lines = append(lines, line)
		said[test] = append(said[test], line)
	}
	if !done {
		tail := lines[max(0, len(lines)-maxTail):]
		errs = append(errs, fmt.Errorf("the machine stopped: %s", strings.Join(tail, "\n")))
	}
	return errors.Join(append(errs, s.Err())...)
}
