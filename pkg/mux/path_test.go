package mux

import (
	"context"
	"errors"
	"io"
	"net"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// path is a way on which a byte takes trip/2 from end to end and which carries
// rate bytes/s in each direction; 0 is no limit.
type path struct {
	trip time.Duration
	rate int
}

// queueLimit is how much waits in front of a path before its sender is held up.
const queueLimit = 4 << 20

func (p path) conns(t *testing.T) (client, server net.Conn) {
	client, a := net.Pipe()
	b, server := net.Pipe()
	var relays sync.WaitGroup
	relays.Go(func() { p.relay(a, b) })
	relays.Go(func() { p.relay(b, a) })
	t.Cleanup(func() {
		a.Close()
		b.Close()
		relays.Wait()
	})
	return client, server
}

func (p path) relay(from, to net.Conn) {
	type packet struct {
		body []byte
		due  time.Time
	}
	var relays sync.WaitGroup
	defer relays.Wait()
	way := make(chan packet, 1<<16)
	defer close(way)
	relays.Go(func() {
		for p := range way {
			time.Sleep(time.Until(p.due))
			to.Write(p.body) // where it fails, from fails too
		}
		to.Close()
	})
	free := time.Now() // when the path has carried what it was given
	for {
		b := make([]byte, 16<<10)
		n, err := from.Read(b)
		if err != nil {
			return
		}
		if now := time.Now(); free.Before(now) {
			free = now
		}
		if p.rate > 0 {
			free = free.Add(time.Duration(n) * time.Second / time.Duration(p.rate))
			limit := queueLimit * time.Second / time.Duration(p.rate)
			time.Sleep(time.Until(free) - limit)
		}
		way <- packet{b[:n], free.Add(p.trip / 2)}
	}
}

// bulk sends size bytes on a stream of its own and tells how long it took.
func bulk(t *testing.T, from, to Session, size int) time.Duration {
	t.Helper()
	a, b := streams(t, from, to)
	defer a.Close()
	defer b.Close()
	written := make(chan error, 1)
	go func() {
		_, err := a.Write(make([]byte, size))
		written <- errors.Join(err, a.CloseWrite())
	}()
	start := time.Now()
	b.SetReadDeadline(start.Add(time.Hour))
	if n, err := io.Copy(io.Discard, b); int(n) != size || err != nil {
		t.Errorf("read %d of %d bytes, %v", n, size, err)
	}
	if err := <-written; err != nil {
		t.Errorf("write: %v", err)
	}
	return time.Since(start)
}

// TestLongPath: one stream fills a long path, whatever its rate, and does so
// before long.
func TestLongPath(t *testing.T) {
	for name, p := range map[string]path{
		"100 MB/s": {80 * time.Millisecond, 100e6},
		"20 MB/s":  {80 * time.Millisecond, 20e6},
		"1 MB/s":   {300 * time.Millisecond, 1e6},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, s := p.conns(t)
				client, server := sessions(t, c, s, Config{})
				for _, way := range [][2]Session{{client, server}, {server, client}} {
					const seconds = 5
					took := bulk(t, way[0], way[1], seconds*p.rate)
					part := seconds / took.Seconds()
					t.Logf("%.1f %% of the path", 100*part)
					if part < 0.9 {
						t.Errorf("%v for what the path carries in %d s", took, seconds)
					}
				}
			})
		})
	}
}

// TestSmallBesideBulk: a small message waits little behind a stream that fills
// the path.
func TestSmallBesideBulk(t *testing.T) {
	for name, c := range map[string]struct {
		bulks int
		most  time.Duration // half of the round trips
	}{
		"one":  {1, 100 * time.Millisecond},
		"four": {4, 120 * time.Millisecond}, // whose shares move
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := path{80 * time.Millisecond, 20e6}
				a, b := p.conns(t)
				client, server := sessions(t, a, b, Config{})
				small, echo := streams(t, server, client)
				go io.Copy(echo, echo)
				var loads sync.WaitGroup
				for range c.bulks {
					loads.Go(func() { bulk(t, client, server, 10*p.rate/c.bulks) })
				}
				ctx, cancel := context.WithCancel(t.Context())
				go func() { loads.Wait(); cancel() }()
				start := time.Now()
				var trips []time.Duration
				for ctx.Err() == nil {
					sent := time.Now()
					write(t, small, "ping")
					checkRead(t, small, "ping")
					trips = append(trips, time.Since(sent))
				}
				slices.Sort(trips)
				p50, most := trips[len(trips)/2], trips[len(trips)-1]
				rate := 10 * float64(p.rate) / time.Since(start).Seconds()
				t.Logf("%d round trips: half within %v, all within %v, beside %.1f MB/s", len(trips), p50, most, rate/1e6)
				if p50 > c.most {
					t.Errorf("half of the round trips took more than %v, on a path of %v", c.most, p.trip)
				}
			})
		})
	}
}

// TestNoLimit lets the window grow as far as it may.
func TestNoLimit(t *testing.T) {
	const size = 256 << 20
	synctest.Test(t, func(t *testing.T) {
		c, s := path{trip: trip}.conns(t)
		client, server := sessions(t, c, s, Config{})
		if d, err := client.Ping(t.Context()); d != trip || err != nil {
			t.Fatalf("Ping: %v, %v; want %v", d, err, trip)
		}
		took := bulk(t, server, client, size)
		t.Logf("%.1f MB/s", size/1e6/took.Seconds())
	})
}
