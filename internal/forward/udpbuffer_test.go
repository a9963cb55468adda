package forward

import (
	"net"
	"net/netip"
	"testing"
	"time"
)

// held is how many of the app's datagrams wait for c's reader when 2,000 come at once.
func held(t *testing.T, app, c *net.UDPConn) int {
	t.Helper()
	to := netip.MustParseAddrPort(c.LocalAddr().String())
	b := make([]byte, 1200)
	for range 2000 {
		if _, err := app.WriteToUDPAddrPort(b, to); err != nil {
			t.Fatal(err)
		}
	}
	c.SetReadDeadline(time.Now().Add(100 * time.Millisecond)) // all is there: loopback is done when it is sent
	n := 0
	for ; n < 2000; n++ {
		if _, err := c.Read(b); err != nil {
			break
		}
	}
	return n
}

// A burst of the app's waits in the kernel until this process runs.
func TestUDPTakesBursts(t *testing.T) {
	app, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer app.Close()
	plain, err := net.DialUDP("udp", nil, app.LocalAddr().(*net.UDPAddr))
	if err != nil {
		t.Fatal(err)
	}
	defer plain.Close()
	ours, err := NewUDP(Target{Addr: app.LocalAddr().String()}, UDPOptions{}).dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer ours.Close()
	if usual, n := held(t, app, plain), held(t, app, ours); n < usual*3/2 {
		t.Errorf("%d datagrams of 1,200 bytes wait, %d at a socket as it comes", n, usual)
	}
}
