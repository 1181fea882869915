package session

import (
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// userName is a user's name, "" if it has none.
func userName(uid uint32) string {
	u, err := user.LookupId(strconv.FormatUint(uint64(uid), 10))
	if err != nil {
		return ""
	}
	return u.Username
}

// cgroups finds the paths of control groups.
type cgroups struct {
	hierarchies []hierarchy
	known       map[cgroup]string
}

// hierarchy is one of control groups: the unified one, or one of a controller.
type hierarchy struct{ name, root string }

type cgroup struct {
	id     uint64
	filter string
}

// maxCgroups bounds the directories that are looked at for one number.
const maxCgroups = 1 << 16

func newCgroups() *cgroups {
	c := &cgroups{known: map[cgroup]string{}}
	const at = "/sys/fs/cgroup"
	var fs unix.Statfs_t
	if unix.Statfs(at, &fs) == nil && fs.Type == unix.CGROUP2_SUPER_MAGIC {
		c.hierarchies = []hierarchy{{"unified", at}}
		return c
	}
	entries, _ := os.ReadDir(at)
	for _, e := range entries {
		root := filepath.Join(at, e.Name())
		if unix.Statfs(root, &fs) == nil && (fs.Type == unix.CGROUP2_SUPER_MAGIC || fs.Type == unix.CGROUP_SUPER_MAGIC) {
			c.hierarchies = append(c.hierarchies, hierarchy{e.Name(), root})
		}
	}
	return c
}

// path are a group's paths, NAME:PATH, parted by semicolons, in the hierarchies whose
// names match the filter; "" if it is in none.
func (c *cgroups) path(id uint64, filter string) string {
	key := cgroup{id, filter}
	if s, ok := c.known[key]; ok {
		return s
	}
	var found []string
	for _, h := range c.hierarchies {
		if ok, err := filepath.Match(filter, h.name); filter != "" && (err != nil || !ok) {
			continue
		}
		if p, ok := under(h.root, id); ok {
			found = append(found, h.name+":"+p)
		}
	}
	s := strings.Join(found, ";")
	c.known[key] = s
	return s
}

// under is the path of the directory below root, or of root itself, whose inode has the
// number.
func under(root string, id uint64) (path string, ok bool) {
	dirs := []string{root}
	for n := 0; len(dirs) > 0 && n < maxCgroups; n++ {
		dir := dirs[0]
		dirs = dirs[1:]
		if inode(dir) == id {
			return "/" + strings.TrimPrefix(strings.TrimPrefix(dir, root), "/"), true
		}
		entries, err := os.ReadDir(dir)
		if err != nil {
			continue
		}
		for _, e := range entries {
			if e.IsDir() {
				dirs = append(dirs, filepath.Join(dir, e.Name()))
			}
		}
	}
	return "", false
}

// cgroupID is the number of the control group that a directory stands for.
func cgroupID(path string) (uint64, error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return 0, &os.PathError{Op: "cgroupid", Path: path, Err: err}
	}
	return st.Ino, nil
}
