package main

import (
	"os"
	"strconv"
	"strings"
)

// starved counts how often the system has ended connections or dropped what they received as TCP's
// memory was used up, see netstat(8) -s and tcp_mem in tcp(7). All processes of a machine share it, so
// whatever else runs may make a run's connections stall or break. 0 where it is not known.
func starved() int {
	text, err := os.ReadFile("/proc/net/netstat")
	if err != nil {
		return 0
	}
	return starvedIn(string(text))
}

// starvedIn reads pairs of lines, the names and the values, see proc_pid_net(5).
func starvedIn(text string) int {
	sum := 0
	lines := strings.Split(text, "\n")
	for i := 0; i+1 < len(lines); i += 2 {
		names, values := strings.Fields(lines[i]), strings.Fields(lines[i+1])
		for j := range min(len(names), len(values)) {
			switch names[j] {
			case "TCPAbortOnMemory", "TCPMemoryPressures":
				n, _ := strconv.Atoi(values[j])
				sum += n
			}
		}
	}
	return sum
}
