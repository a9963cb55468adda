package files

import (
	"io/fs"
	"syscall"
	"time"
)

// nonblock opens nothing that another process would have to open first.
const nonblock = syscall.O_NONBLOCK

// changeTime is when content or attributes changed last, which nobody can set.
func changeTime(info fs.FileInfo) (time.Time, bool) {
	s, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return time.Time{}, false
	}
	return time.Unix(s.Ctim.Unix()), true
}
