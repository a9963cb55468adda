//go:build unix

package mux

import (
	"bytes"
	"io"
	"testing"
)

// TestSocketTakesHalf: the rest of a write that a socket took in part follows,
// and what was queued meanwhile is not left behind.
func TestSocketTakesHalf(t *testing.T) {
	c, s := tcpConns(t)
	client, server := sessions(t, c, s, Config{KeepAlive: -1})
	a, aPeer := streams(t, client, server)
	b, bPeer := streams(t, client, server)
	out := &client.(*session).out
	eventually(t, "nothing is being sent", func() bool {
		out.mu.Lock()
		defer out.mu.Unlock()
		return !out.flushing
	})
	d, times := out.direct, 0
	d.once = func(fd uintptr) bool {
		if times++; times == 1 {
			write(t, b, "meanwhile")
		}
		if times > 1 {
			d.b = d.b[:len(d.b)/2]
		}
		return d.write(fd)
	}
	write(t, a, "first")
	checkRead(t, aPeer, "first")
	checkRead(t, bPeer, "meanwhile")
	long := bytes.Repeat([]byte("0123456789"), 1000)
	for range 10 {
		if _, err := a.Write(long); err != nil {
			t.Fatal(err)
		}
		got := make([]byte, len(long))
		if _, err := io.ReadFull(aPeer, got); err != nil || !bytes.Equal(got, long) {
			t.Fatalf("other bytes came than were written: %v", err)
		}
	}
	if times < 2 {
		t.Error("nothing was written on the caller's goroutine")
	}
}
