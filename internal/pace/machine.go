package pace

import (
	"io/fs"
	"path"
	"strconv"
	"strings"
)

// Available returns how much memory this process may have, in bytes: what the
// machine has, or the least that its container or another control group leaves
// it. root is the file system's root. It is 0 where that is not known, as on
// systems without /proc.
func Available(root fs.FS) uint64 {
	least := uint64(0)
	take := func(n uint64, ok bool) {
		if ok && n > 0 && (least == 0 || n < least) {
			least = n
		}
	}
	take(machine(root))
	for _, dir := range groups(root) {
		for _, file := range []string{"memory.max", "memory.high", "memory.limit_in_bytes"} {
			b, err := fs.ReadFile(root, path.Join(dir, file))
			if err != nil {
				continue
			}
			n, err := strconv.ParseUint(strings.TrimSpace(string(b)), 10, 64) // "max": none
			take(n, err == nil)
		}
	}
	return least
}

// machine is MemTotal of proc_meminfo(5).
func machine(root fs.FS) (uint64, bool) {
	b, err := fs.ReadFile(root, "proc/meminfo")
	if err != nil {
		return 0, false
	}
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, "MemTotal:"); ok {
			n, err := strconv.ParseUint(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(rest), "kB")), 10, 64)
			return n << 10, err == nil
		}
	}
	return 0, false
}

// groups are the folders of this process's control groups for memory, and of
// those above them: each has a limit of its own. In a container its own group is
// mostly mounted as the root, whatever /proc says of it.
func groups(root fs.FS) []string {
	b, err := fs.ReadFile(root, "proc/self/cgroup")
	if err != nil {
		return nil
	}
	var dirs []string
	for line := range strings.Lines(string(b)) {
		// cgroups(7): hierarchy-ID:controller-list:cgroup-path
		parts := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(parts) != 3 {
			continue
		}
		var mounts []string
		switch {
		case parts[0] == "0" && parts[1] == "":
			mounts = []string{"sys/fs/cgroup", "sys/fs/cgroup/unified"}
		case strings.Contains(","+parts[1]+",", ",memory,"):
			mounts = []string{"sys/fs/cgroup/memory"}
		}
		for _, mount := range mounts {
			for dir := path.Clean("/" + parts[2]); ; dir = path.Dir(dir) {
				dirs = append(dirs, path.Join(mount, dir))
				if dir == "/" {
					break
				}
			}
		}
	}
	return dirs
}
