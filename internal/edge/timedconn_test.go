package edge

import (
	"net"
	"testing"
	"time"
)

// net/http may close a connection between two reads: there is no timer then.
func TestClosedBeforeTheTimer(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	tcp, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	c := &timedConn{wrapper: wrapper{tcp.(*net.TCPConn)}, timeout: time.Minute, accepted: time.Now()}
	c.Close()
	c.watch([]byte(preface))
	c.watch([]byte{0, 0, 0, frameHeaders, flagEndHeaders, 0, 0, 0, 1})
}
