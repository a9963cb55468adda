//go:build unix && !linux

package main

import "syscall"

func childAttributes() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }

// adopt does nothing: only Linux gives orphans to their grandparents.
func adopt() []int { return nil }

// leftOf returns the command's group, as kill(2) has it, while there is something in it.
func leftOf(group int) []int {
	if syscall.Kill(-group, 0) != nil {
		return nil
	}
	return []int{-group}
}
