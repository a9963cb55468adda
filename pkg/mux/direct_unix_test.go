//go:build unix

package mux

import (
	"bytes"
	"io"
	"testing"
	"time"

	"github.com/revtun/tunnel/internal/rig/poll"
)

// TestSocketTakesHalf: the rest of a write that a socket took in part follows,
// and what was queued meanwhile is not left behind.
func TestSocketTakesHalf(t *testing.T) {
	c, s := tcpConns(t)
	client, server := sessions(t, c, s, Config{KeepAlive: -1})
	a, aPeer := streams(t, client, server)
	b, bPeer := streams(t, client, server)
	out := &client.(*session).out
	poll.Until(t, "the first pings are answered, and nothing is being sent", func() bool {
		out.mu.Lock()
		defer out.mu.Unlock()
		return !out.flushing && client.(*session).life.shortest.Load() != 0 && server.(*session).life.shortest.Load() != 0
	})
	aPeer.SetReadDeadline(time.Now().Add(time.Minute))
	bPeer.SetReadDeadline(time.Now().Add(time.Minute))
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

// TestNothingToSend: who found nothing to send does not go on as the one who
// sends. Another goroutine may have begun since, and two would mix up the bytes
// of a stream.
func TestNothingToSend(t *testing.T) {
	c, s := tcpConns(t)
	client, _ := sessions(t, c, s, Config{KeepAlive: -1})
	out := &client.(*session).out
	poll.Until(t, "nothing is being sent", func() bool {
		out.mu.Lock()
		defer out.mu.Unlock()
		return !out.flushing && client.(*session).life.shortest.Load() != 0
	})
	out.mu.Lock()
	out.flushing = true
	out.mu.Unlock()
	if out.try() {
		t.Error("it counts as the one who sends, though there was nothing")
	}
	out.mu.Lock()
	defer out.mu.Unlock()
	if out.flushing {
		t.Error("nobody sends, and nobody else may begin")
	}
}
