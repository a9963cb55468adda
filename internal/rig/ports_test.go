package rig

import (
	"net"
	"testing"
)

func TestFreePorts(t *testing.T) {
	within := given()
	for range 20 {
		first := FreePorts(t, 5)
		for port := first; port < first+5; port++ {
			if port >= within.first && port <= within.last {
				t.Errorf("%d is one that the system gives away, from %d to %d", port, within.first, within.last)
			}
		}
	}
	l, err := net.Listen("tcp", FreePort(t))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	udp, err := net.ListenPacket("udp", FreePort(t))
	if err != nil {
		t.Fatal(err)
	}
	defer udp.Close()
	for _, taken := range []int{l.Addr().(*net.TCPAddr).Port, udp.LocalAddr().(*net.UDPAddr).Port} {
		if free(taken, 1, portRange{}) || free(taken-2, 3, portRange{}) {
			t.Errorf("%d is free, and taken", taken)
		}
		if free(taken+1, 1, portRange{taken, taken + 1}) {
			t.Errorf("%d is given away, and free", taken+1)
		}
	}
}
