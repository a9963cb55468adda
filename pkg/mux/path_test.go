package mux

import (
	"errors"
	"io"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// longPath is a connection on which a byte takes trip/2 from end to end.
func longPath(t *testing.T) (client, server net.Conn) {
	client, a := net.Pipe()
	b, server := net.Pipe()
	var relays sync.WaitGroup
	relays.Go(func() { relay(a, b) })
	relays.Go(func() { relay(b, a) })
	t.Cleanup(func() {
		a.Close()
		b.Close()
		relays.Wait()
	})
	return client, server
}

func relay(from, to net.Conn) {
	type packet struct {
		body []byte
		due  time.Time
	}
	var relays sync.WaitGroup
	defer relays.Wait()
	path := make(chan packet, 1<<16)
	defer close(path)
	relays.Go(func() {
		for p := range path {
			time.Sleep(time.Until(p.due))
			to.Write(p.body) // where it fails, from fails too
		}
		to.Close()
	})
	for {
		b := make([]byte, 128<<10)
		n, err := from.Read(b)
		if err != nil {
			return
		}
		path <- packet{b[:n], time.Now().Add(trip / 2)}
	}
}

// TestLongPath lets the window of a stream grow as far as it may. With a largest
// window other than 256 KiB times a power of two, go-yamux grants too little in
// its last step, and the stream stalls for ever.
func TestLongPath(t *testing.T) {
	const size = 64 << 20
	synctest.Test(t, func(t *testing.T) {
		c, s := longPath(t)
		client, server := sessions(t, c, s, Config{})
		if d, err := client.Ping(t.Context()); d != trip || err != nil {
			t.Fatalf("Ping: %v, %v; want %v", d, err, trip)
		}
		a, b := streams(t, server, client)
		written := make(chan error, 1)
		go func() {
			_, err := a.Write(make([]byte, size))
			written <- errors.Join(err, a.CloseWrite())
		}()
		start := time.Now()
		b.SetReadDeadline(start.Add(time.Hour))
		if n, err := io.Copy(io.Discard, b); n != size || err != nil {
			t.Errorf("read %d of %d bytes, %v", n, size, err)
		}
		t.Logf("%.1f MB/s", size/1e6/time.Since(start).Seconds())
		client.Close()
		server.Close()
		if err := <-written; err != nil {
			t.Errorf("write: %v", err)
		}
	})
}
