//go:build !linux

package proxy

import "syscall"

// hungUp cannot tell here.
func hungUp(syscall.Conn) bool { return false }

// awaitReset cannot tell here.
func awaitReset(syscall.Conn) bool { return false }
