package main

import (
	"bytes"
	"debug/elf"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// kernel is a Debian kernel.
type kernel struct {
	series string // "6.1"
	suite  string // of Debian, whose linux-image-amd64 is of that series
}

var kernels = []kernel{
	{"6.1", "bookworm"},
	{"6.12", "bookworm-backports"},
}

// image is an unpacked kernel.
type image struct {
	vmlinuz string
	modules map[string]string // by name with underscores: path
}

// fetch downloads and unpacks the kernel into a directory, once.
func (k kernel) fetch(dir, mirror string) (*image, error) {
	dir = filepath.Join(dir, k.series)
	root := filepath.Join(dir, "root")
	if _, err := os.Stat(root); err != nil {
		if err := k.download(dir, root, mirror); err != nil {
			return nil, fmt.Errorf("kernel %s: %w", k.series, err)
		}
	}
	img := &image{modules: make(map[string]string)}
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := d.Name()
		if strings.HasPrefix(name, "vmlinuz-") {
			img.vmlinuz = path
		}
		if base, _, ok := strings.Cut(name, ".ko"); ok {
			img.modules[strings.ReplaceAll(base, "-", "_")] = path
		}
		return nil
	})
	if err == nil && img.vmlinuz == "" {
		err = fmt.Errorf("no vmlinuz below %s", root)
	}
	return img, err
}

// download takes the package by apt, with lists of its own: the machine's sources
// are neither used nor changed.
func (k kernel) download(dir, root, mirror string) error {
	for _, d := range []string{"lists/partial", "cache/archives/partial"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			return err
		}
	}
	list := filepath.Join(dir, "sources.list")
	source := fmt.Sprintf("deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] %s %s main\n", mirror, k.suite)
	if err := os.WriteFile(list, []byte(source), 0o644); err != nil {
		return err
	}
	apt := func(args ...string) ([]byte, error) {
		cmd := exec.Command(args[0], append([]string{
			"-o", "Dir::Etc::sourcelist=" + list, "-o", "Dir::Etc::sourceparts=-",
			"-o", "Dir::State::lists=" + filepath.Join(dir, "lists"), "-o", "Dir::Cache=" + filepath.Join(dir, "cache"),
			"-o", "APT::Sandbox::User=root",
		}, args[1:]...)...)
		cmd.Dir = dir
		cmd.Stderr = os.Stderr
		out, err := cmd.Output()
		if err != nil {
			err = fmt.Errorf("%s %s: %w", args[0], args[1], err)
		}
		return out, err
	}
	if _, err := apt("apt-get", "-q", "update"); err != nil {
		return err
	}
	meta, err := apt("apt-cache", "show", "--no-all-versions", "linux-image-amd64")
	if err != nil {
		return err
	}
	pkg := ""
	for line := range strings.Lines(string(meta)) {
		if rest, ok := strings.CutPrefix(line, "Depends: "); ok {
			pkg = strings.Fields(rest)[0]
		}
	}
	if !strings.HasPrefix(pkg, "linux-image-"+k.series+".") {
		return fmt.Errorf("linux-image-amd64 of %s is %q", k.suite, pkg)
	}
	if _, err := apt("apt-get", "-q", "download", pkg); err != nil {
		return err
	}
	debs, err := filepath.Glob(filepath.Join(dir, pkg+"_*.deb"))
	if err != nil || len(debs) != 1 {
		return fmt.Errorf("%s was downloaded as %q", pkg, debs)
	}
	unpacked := root + ".new"
	if err := os.RemoveAll(unpacked); err != nil {
		return err
	}
	if out, err := exec.Command("dpkg-deb", "-x", debs[0], unpacked).CombinedOutput(); err != nil {
		return fmt.Errorf("dpkg-deb: %w: %s", err, out)
	}
	return os.Rename(unpacked, root)
}

// mirror is where the machine's own packages come from.
func mirror() (string, error) {
	out, err := exec.Command("apt-get", "indextargets", "--format", "$(ORIGIN) $(LABEL) $(REPO_URI)", "Created-By: Packages").Output()
	if err != nil {
		return "", fmt.Errorf("apt-get indextargets: %w", err)
	}
	for line := range strings.Lines(string(out)) {
		if uri, ok := strings.CutPrefix(line, "Debian Debian "); ok {
			return strings.TrimSpace(uri), nil
		}
	}
	return "", fmt.Errorf("apt has no lists of Debian: run apt-get update, or name a mirror with -mirror")
}

// load returns modules, each after what it depends on, decompressed. Those that the
// kernel has built in are left out.
func (img *image) load(names ...string) (files [][]byte, err error) {
	seen := make(map[string]bool)
	var add func(name string) error
	add = func(name string) error {
		name = strings.ReplaceAll(name, "-", "_")
		path := img.modules[name]
		if path == "" || seen[name] {
			return nil
		}
		seen[name] = true
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if strings.HasSuffix(path, ".xz") {
			cmd := exec.Command("xz", "-dc", path)
			if b, err = cmd.Output(); err != nil {
				return fmt.Errorf("xz -dc %s: %w", path, err)
			}
		}
		deps, err := dependencies(b)
		if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		for _, d := range deps {
			if err := add(d); err != nil {
				return err
			}
		}
		files = append(files, b)
		return nil
	}
	for _, n := range names {
		if err := add(n); err != nil {
			return nil, err
		}
	}
	return files, nil
}

// dependencies reads a module's "depends=" (scripts/mod/modpost.c).
func dependencies(module []byte) ([]string, error) {
	f, err := elf.NewFile(bytes.NewReader(module))
	if err != nil {
		return nil, err
	}
	s := f.Section(".modinfo")
	if s == nil {
		return nil, fmt.Errorf("no .modinfo")
	}
	info, err := s.Data()
	if err != nil {
		return nil, err
	}
	for _, e := range strings.Split(string(info), "\x00") {
		if list, ok := strings.CutPrefix(e, "depends="); ok && list != "" {
			return strings.Split(list, ","), nil
		}
	}
	return nil, nil
}

// entry is a file or, without content, a directory of an initramfs.
type entry struct {
	name    string
	content []byte
	mode    uint32
}

// cpio writes an initramfs (Documentation/driver-api/early-userspace/buffer-format.rst).
func cpio(entries []entry) []byte {
	var b bytes.Buffer
	pad := func() {
		for b.Len()%4 != 0 {
			b.WriteByte(0)
		}
	}
	for i, e := range append(entries, entry{name: "TRAILER!!!"}) {
		fmt.Fprintf(&b, "070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x",
			i+1, e.mode, 0, 0, 1, 0, len(e.content), 0, 0, 0, 0, len(e.name)+1, 0)
		b.WriteString(e.name)
		b.WriteByte(0)
		pad()
		b.Write(e.content)
		pad()
	}
	return b.Bytes()
}
