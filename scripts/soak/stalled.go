package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// What docs/limits.md states for a visitor that reads nothing: the stream's window, what it takes to move
// a body and to hold the connection, and what Go's heap takes beside; and for all of a session, what
// windows may grow by.
const (
	stalledServer = 450_000  // bytes for each, on the server
	stalledClient = 64 << 10 // on the client
	sessionExtra  = 24 << 20 // bytes for a session, on either side
)

// stalled has visitors read a long download at a kilobyte a second, and measures what others notice.
func (t *trial) stalled() error {
	n := pick(t, 200, 1_000)
	if err := t.serve(quiet); err != nil {
		return err
	}
	client, err := t.client(t.addr, "mine", "--no-inspect") // which keeps 50 MiB of answers by itself
	if err != nil {
		return err
	}
	if _, err := t.client(t.addr, "others"); err != nil {
		return err
	}
	names := []string{"mine", "others"}
	before := t.latencies(names)
	serverBefore, clientBefore := t.server.RSS(), client.RSS()
	ctx, stop := context.WithCancel(t.Context)
	defer stop()
	drip := t.drip(ctx, "mine", n, 100_000_000)
	defer drip.wait()
	defer stop()
	if err := drip.begun(t, n); err != nil {
		return err
	}
	t.Sleep(pick(t, 2*time.Second, 10*time.Second))
	during := t.latencies(names)
	t.Sleep(pick(t, time.Second, 15*time.Second))
	done := fmt.Sprintf("%d visitors that read 100 MB at 1 kB/s: ", n)
	t.atMost(done+"growth of the server's memory", "%.0f MB", (t.server.PeakRSS()-serverBefore)/mb, (float64(n)*stalledServer+sessionExtra)/mb)
	t.atMost(done+"growth of the client's memory", "%.0f MB", (client.PeakRSS()-clientBefore)/mb, (float64(n)*stalledClient+sessionExtra)/mb)
	t.check(drip.broken.Load() == 0, done+"broken off", fmt.Sprint(drip.broken.Load()), "0")
	for i, whose := range []string{"of the same tunnel", "of another one"} {
		was, is := before[i].p99(), during[i].p99()
		t.check(len(during[i].errors) == 0 && is <= 2*was, done+"p99 of small requests "+whose,
			fmt.Sprintf("%.2f (%.1f ms, before %.1f; %s)", float64(is)/float64(was), ms(is), ms(was), during[i].failed()), "<= 2.00, 0 failed")
	}
	return nil
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// latencies makes small requests of each name, for all at the same time.
func (t *trial) latencies(names []string) []*latencies {
	all := make([]*latencies, len(names))
	var each sync.WaitGroup
	for i, name := range names {
		each.Go(func() {
			all[i] = t.send(paced{name: name, requests: pick(t, 2_100, 6_000), over: pick(t, 5*time.Second, 20*time.Second)})
		})
	}
	each.Wait()
	return all
}

// A dripper is many visitors that read slowly.
type dripper struct {
	sync.WaitGroup
	reading, refused, broken atomic.Int64
	late                     atomic.Int64 // refused with Retry-After
}

// drip starts n visitors that read size bytes of name at a kilobyte a second, until ctx ends.
func (t *trial) drip(ctx context.Context, name string, n int, size int64) *dripper {
	d := &dripper{}
	slots := make(chan struct{}, 64) // that connect
	for i := range n {
		d.Go(func() {
			slots <- struct{}{}
			c, err := t.download(i, name, size)
			<-slots
			var r *refusal
			switch {
			case errors.As(err, &r):
				d.refused.Add(1)
				if r.status == http.StatusServiceUnavailable && r.retryAfter != "" {
					d.late.Add(1)
				}
				return
			case err != nil:
				d.broken.Add(1)
				return
			}
			defer c.Close()
			d.reading.Add(1)
			if !readSlowly(ctx, c) {
				d.broken.Add(1)
			}
		})
	}
	return d
}

func (d *dripper) wait() { d.Wait() }

// begun waits until each of n has the answer's header, or was refused.
func (d *dripper) begun(t *trial, n int) error {
	return t.Until(time.Minute, 20*time.Millisecond, func() error {
		if all := d.reading.Load() + d.refused.Load() + d.broken.Load(); all < int64(n) {
			return fmt.Errorf("%d of %d downloads have begun", all, n)
		}
		return nil
	})
}

// download asks for a long body with a small buffer to receive it, so that what waits, waits in the tunnel.
func (t *trial) download(i int, name string, size int64) (net.Conn, error) {
	d := net.Dialer{
		Timeout: 10 * time.Second, LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 1, byte(1+i%8))},
		Control: func(_, _ string, c syscall.RawConn) error {
			var err error
			outer := c.Control(func(fd uintptr) {
				err = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, 4096)
			})
			return errors.Join(outer, err)
		},
	}
	c, err := d.Dial("tcp", t.addr)
	if err != nil {
		return nil, err
	}
	if err = c.SetDeadline(time.Now().Add(30 * time.Second)); err == nil {
		_, err = ask(c, fmt.Sprintf("/down/%d", size), name)
	}
	if err != nil {
		c.Close()
		return nil, err
	}
	return c, c.SetDeadline(time.Time{})
}

// readSlowly reads a kilobyte each second; false where the connection broke before ctx ended.
func readSlowly(ctx context.Context, c net.Conn) bool {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	stop := context.AfterFunc(ctx, func() { c.Close() })
	defer stop()
	buf := make([]byte, 1000)
	for {
		select {
		case <-ctx.Done():
			return true
		case <-tick.C:
		}
		if _, err := c.Read(buf); err != nil {
			return ctx.Err() != nil
		}
	}
}

// overload gives a server with a limit of memory more than it can hold.
func (t *trial) overload() error {
	limit := pick(t, 128, 512) // MiB
	stalls, idles := pick(t, 1_500, 8_000), pick(t, 500, 5_000)
	if err := t.serve(quiet, fmt.Sprintf("--memory-limit=%dMiB", limit)); err != nil {
		return err
	}
	for _, name := range []string{"mine", "others"} {
		if _, err := t.client(t.addr, name); err != nil {
			return err
		}
	}
	ctx, stop := context.WithCancel(t.Context)
	defer stop()
	var idle sync.WaitGroup
	for i := range idles {
		idle.Go(func() { t.sit(ctx, i) })
	}
	drip := t.drip(ctx, "mine", stalls, 100_000_000)
	flood := t.flood(ctx, "others", pick(t, 6*time.Second, 30*time.Second))
	begun := drip.begun(t, stalls)
	held := fmt.Sprintf("%d stalled, %d refused, %d broken off", drip.reading.Load(), drip.refused.Load(), drip.broken.Load())
	peak, alive := t.server.PeakRSS(), !t.server.Exited()
	stop()
	drip.wait()
	idle.Wait()
	done := fmt.Sprintf("%d MiB: %d stalled downloads, %d idle connections and a flood: ", limit, stalls, idles)
	t.check(alive, done+"the server", map[bool]string{true: "lives", false: "ended: " + t.server.LastWords()}[alive], "lives")
	t.check(begun == nil, done+"downloads", held, "all are decided")
	t.atMost(done+"peak of its memory", "%.0f MiB", peak/mib, float64(limit))
	t.check(drip.late.Load()+flood.shed.Load() > 0, done+"503 with Retry-After",
		fmt.Sprintf("%d downloads, %d of %d requests", drip.late.Load(), flood.shed.Load(), flood.all.Load()), "> 0")
	return t.heal("overload", "others", 15*time.Second, func() error { return nil })
}

// sit is a visitor's kept connection on which nothing comes any more, until ctx ends.
func (t *trial) sit(ctx context.Context, i int) {
	w, err := t.dial(i)
	if err != nil {
		return
	}
	defer w.Close()
	if _, err := ask(w, "/small", "others"); err == nil {
		<-ctx.Done()
	}
}

// A tide is a flood of small requests.
type tide struct{ all, shed atomic.Int64 }

// flood makes requests for as long, on 64 connections, as fast as they are answered.
func (t *trial) flood(ctx context.Context, name string, long time.Duration) *tide {
	f := &tide{}
	ctx, cancel := context.WithTimeout(ctx, long)
	defer cancel()
	c := visitors()
	defer c.CloseIdleConnections()
	var all sync.WaitGroup
	for range 64 {
		all.Go(func() {
			for ctx.Err() == nil {
				err := t.get(c, name, "/small", 10*time.Second)
				f.all.Add(1)
				var r *refusal
				if errors.As(err, &r) && r.status == http.StatusServiceUnavailable && r.retryAfter != "" {
					f.shed.Add(1)
				}
				if err != nil {
					t.Sleep(5 * time.Millisecond)
				}
			}
		})
	}
	all.Wait()
	return f
}
