// Command init is the first process of the virtual machine: it mounts the host's
// files, runs the test binaries that the job names, and switches the machine off.
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"ferrotrace/test/kernels/job"

	"golang.org/x/sys/unix"
)

func main() {
	if err := run(); err != nil {
		fmt.Println("\n" + job.Fatal + err.Error())
	} else {
		fmt.Println("\n" + job.Done)
	}
	unix.Sync()
	_ = unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
	select {} // an init that ends is a panic
}

func mount(source, target, fstype string, flags uintptr, data string) error {
	if err := unix.Mount(source, target, fstype, flags, data); err != nil {
		return fmt.Errorf("mounting %s at %s: %w", fstype, target, err)
	}
	return nil
}

func run() error {
	if err := mount("proc", "/proc", "proc", 0, ""); err != nil {
		return err
	}
	modules, err := filepath.Glob("/modules/*") // in order
	if err != nil {
		return err
	}
	for _, m := range modules {
		if err := load(m); err != nil {
			return fmt.Errorf("module %s: %w", m, err)
		}
	}
	// Nothing is written to the host: what tests write stays in memory.
	if err := mount(job.Share, "/lower", "9p", unix.MS_RDONLY, "trans=virtio,version=9p2000.L,cache=loose,msize=262144"); err != nil {
		return err
	}
	if err := mount("tmpfs", "/memory", "tmpfs", 0, ""); err != nil {
		return err
	}
	for _, dir := range []string{"/memory/upper", "/memory/work"} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			return err
		}
	}
	if err := mount("overlay", "/host", "overlay", 0, "lowerdir=/lower,upperdir=/memory/upper,workdir=/memory/work"); err != nil {
		return err
	}
	for _, m := range []struct{ source, target, fstype string }{
		{"proc", "/host/proc", "proc"},
		{"sysfs", "/host/sys", "sysfs"},
		{"devtmpfs", "/host/dev", "devtmpfs"},
		{"tmpfs", "/host/tmp", "tmpfs"},
		{"tracefs", "/host/sys/kernel/tracing", "tracefs"},
	} {
		if err := mount(m.source, m.target, m.fstype, 0, ""); err != nil {
			return err
		}
	}
	if err := unix.Chroot("/host"); err != nil {
		return err
	}
	if err := os.Chdir("/"); err != nil {
		return err
	}
	j, err := readJob()
	if err != nil {
		return err
	}
	for _, t := range j.Tests {
		fmt.Println("\n" + job.Begin + t.Package)
		cmd := exec.Command(t.Binary, t.Args...)
		cmd.Dir, cmd.Env = t.Dir, j.Env
		cmd.Stdout, cmd.Stderr = os.Stdout, os.Stdout
		result := "ok"
		if err := cmd.Run(); err != nil {
			result = err.Error()
		}
		fmt.Println("\n" + job.End + result)
	}
	return nil
}

func load(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	return unix.FinitModule(int(f.Fd()), "", 0)
}

func readJob() (j job.Job, err error) {
	line, err := os.ReadFile("/proc/cmdline")
	if err != nil {
		return j, err
	}
	for _, word := range strings.Fields(string(line)) {
		if path, ok := strings.CutPrefix(word, job.Param+"="); ok {
			b, err := os.ReadFile(path)
			if err != nil {
				return j, err
			}
			return j, json.Unmarshal(b, &j)
		}
	}
	return j, fmt.Errorf("no %s in %q", job.Param, line)
}
