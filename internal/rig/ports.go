package rig

import (
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"strconv"
	"testing"
)

// FreePorts returns the first of n ports in a row of 127.0.0.1 that are free for TCP and
// UDP, for a program that has to be told its port. They are none that the system gives
// away by itself: such a port may become the local end of anybody's connection before it
// is listened at, or between two times; and who dials it while nobody listens may, on
// Linux, reach nobody but itself.
func FreePorts(tb testing.TB, n int) int {
	tb.Helper()
	low, high := 2048, 65536-n
	for range 1000 {
		first := low + rand.IntN(high-low)
		if free(first, n, given()) {
			return first
		}
	}
	tb.Fatalf("no %d ports in a row are free", n)
	return 0
}

// FreePort is one of [FreePorts], with 127.0.0.1 as an address.
func FreePort(tb testing.TB) string {
	tb.Helper()
	return local(FreePorts(tb, 1))
}

// A portRange is from its first port to its last one.
type portRange struct{ first, last int }

// given is the range of the ports that the system gives away.
func given() portRange {
	r := portRange{32768, 65535} // of Linux, and of most others what RFC 6335, section 6 has, within it
	text, err := os.ReadFile("/proc/sys/net/ipv4/ip_local_port_range")
	if err == nil {
		fmt.Sscan(string(text), &r.first, &r.last)
	}
	if r.first <= 10_000 && r.last >= 60_000 {
		return portRange{} // there is nearly nothing else
	}
	return r
}

// free reports whether n ports from first are, and whether none is within not.
func free(first, n int, not portRange) bool {
	if first <= not.last && first+n > not.first {
		return false
	}
	for port := first; port < first+n; port++ {
		udp, err := net.ListenPacket("udp", local(port))
		if err != nil {
			return false
		}
		udp.Close()
		tcp, err := net.Listen("tcp", local(port))
		if err != nil {
			return false
		}
		tcp.Close()
	}
	return true
}

func local(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }
