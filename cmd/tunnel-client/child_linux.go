package main

import (
	"bytes"
	"os"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// childAttributes lets the command end with a process that was killed and could not end it.
func childAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
}

// adopt makes this process the parent of all whose parents among its descendants have
// ended, so that none gets away, not even a daemon. It returns the children that are there:
// a script may have started some before it became this process.
func adopt() []int {
	unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
	return leftOf(0)
}

// leftOf returns this process's children: all that the command, which has ended, has left,
// or the parents of that.
func leftOf(int) []int {
	for {
		if pid, err := syscall.Wait4(-1, nil, syscall.WNOHANG, nil); err != nil || pid <= 0 {
			break
		}
	}
	all, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	self, left := strconv.Itoa(os.Getpid()), []int(nil)
	for _, entry := range all {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil {
			continue
		}
		stat, err := os.ReadFile("/proc/" + entry.Name() + "/stat")
		if err != nil {
			continue // it has ended
		}
		// The name before it, in parentheses, may have anything in it (proc(5)).
		fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
		if len(fields) > 1 && string(fields[1]) == self && string(fields[0]) != "Z" {
			left = append(left, pid)
		}
	}
	return left
}
