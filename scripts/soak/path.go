package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/revtun/tunnel/internal/rig"
)

const (
	wide    = 100_000_000     // bytes a second that stand in nobody's way
	endless = int64(64) << 30 // bytes of a body that is broken off in time
)

// path puts a path before target and returns its address. It lasts until the program ends, or close.
func (s *site) path(target string, delay time.Duration, rate int) (p *rig.Path, at string, close func(), err error) {
	p = rig.NewPath(target, delay, rate)
	l, err := p.Listen("127.0.0.1:0")
	if err != nil {
		p.Close()
		return nil, "", nil, err
	}
	go p.Serve(l)
	return p, l.Addr().String(), func() { l.Close(); p.Close() }, nil
}

// slowLink has writers at both ends of a link that is far too slow for them.
func (t *trial) slowLink() error {
	const writers, rate = 32, 256_000 / 8
	long := pick(t, 30*time.Second, 10*time.Minute)
	if err := t.serve(); err != nil {
		return err
	}
	_, at, end, err := t.path(t.addr, 20*time.Millisecond, rate)
	if err != nil {
		return err
	}
	defer end()
	client, err := t.client(at, "slow")
	if err != nil {
		return err
	}
	deadline := time.Now().Add(long)
	var all sync.WaitGroup
	var down, up atomic.Int64
	broken := make(chan error, 2*writers)
	for range writers {
		all.Go(func() { broken <- t.transfer(false, deadline, &down) })
		all.Go(func() { broken <- t.transfer(true, deadline, &up) })
	}
	all.Wait()
	close(broken)
	cut, first := 0, error(nil)
	for err := range broken {
		if err != nil {
			cut, first = cut+1, err
		}
	}
	figure := fmt.Sprint(cut)
	if first != nil {
		figure += ": " + first.Error()
	}
	sessions := strings.Count(t.server.Log(), `msg="session ended"`)
	done := fmt.Sprintf("256 kbit/s, %d writers each way, %v", writers, long)
	t.check(disconnects(client) == 0 && sessions == 0, done+": sessions lost, by the client and by the server",
		fmt.Sprintf("%d, %d", disconnects(client), sessions), "0, 0")
	t.check(cut == 0, done+": transfers broken off", figure, "0")
	// Half of what the link carries in that time is what must have arrived at least.
	least := long.Seconds() * rate / 2 / mb
	t.check(float64(down.Load())/mb >= least, done+": arrived",
		fmt.Sprintf("%.1f MB", float64(down.Load())/mb), fmt.Sprintf(">= %.1f MB", least))
	return nil
}

// transfer moves an endless body until the deadline. The error is that it broke off before.
func (s *site) transfer(upload bool, deadline time.Time, moved *atomic.Int64) error {
	c, err := net.Dial("tcp", s.addr)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.SetDeadline(deadline); err != nil {
		return err
	}
	if upload {
		_, err = fmt.Fprintf(c, "POST /up HTTP/1.1\r\nHost: slow.localhost\r\nContent-Length: %d\r\n\r\n", endless)
		if err == nil {
			_, err = io.Copy(counted{c, moved}, io.LimitReader(zeros{}, endless))
		}
		return unlessInTime(err)
	}
	resp, err := ask(c, fmt.Sprintf("/down/%d", endless), "slow")
	if err == nil {
		_, err = io.Copy(counted{io.Discard, moved}, resp.Body)
	}
	return unlessInTime(err)
}

// ask asks on a connection and reads the answer's header.
func ask(c net.Conn, path, name string) (*http.Response, error) {
	if _, err := fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: %s.localhost\r\n\r\n", path, name); err != nil {
		return nil, err
	}
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = &refusal{resp.StatusCode, resp.Header.Get("Retry-After")}
	}
	return resp, err
}

func unlessInTime(err error) error {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return nil
	}
	if err == nil {
		err = errors.New("it ended by itself")
	}
	return err
}

// zeros are read without an end.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// counted counts what it passes on.
type counted struct {
	io.Writer
	n *atomic.Int64
}

func (c counted) Write(p []byte) (int, error) {
	n, err := c.Writer.Write(p)
	c.n.Add(int64(n))
	return n, err
}

// longPath compares one download through the tunnel with one on plain TCP, over paths of the same kind.
func (t *trial) longPath() error {
	const rate = 20_000_000
	if err := t.serve(quiet); err != nil {
		return err
	}
	for _, roundTrip := range []time.Duration{20 * time.Millisecond, 100 * time.Millisecond, 200 * time.Millisecond} {
		_, plain, endPlain, err := t.path(t.app, roundTrip/2, rate)
		if err != nil {
			return err
		}
		defer endPlain()
		_, at, end, err := t.path(t.addr, roundTrip/2, rate)
		if err != nil {
			return err
		}
		defer end()
		name := fmt.Sprintf("far-%d", roundTrip.Milliseconds())
		if _, err := t.client(at, name); err != nil {
			return err
		}
		direct, err := t.throughput(plain, name, roundTrip)
		if err != nil {
			return err
		}
		tunnel, err := t.throughput(t.addr, name, roundTrip)
		if err != nil {
			return err
		}
		t.check(tunnel >= 0.9*direct, fmt.Sprintf("one download, round trip %v, 20 MB/s: share of plain TCP", roundTrip),
			fmt.Sprintf("%.2f (%.1f of %.1f MB/s)", tunnel/direct, tunnel/mb, direct/mb), ">= 0.90")
	}
	return nil
}

// throughput is the bytes a second of one download, after the time that windows take to grow.
func (t *trial) throughput(addr, name string, roundTrip time.Duration) (float64, error) {
	warm, measure := time.Second/2+15*roundTrip, pick(t, time.Second, 8*time.Second)
	c, err := net.Dial("tcp", addr)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	resp, err := ask(c, fmt.Sprintf("/down/%d", endless), name)
	if err != nil {
		return 0, err
	}
	var moved atomic.Int64
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_, _ = io.Copy(counted{io.Discard, &moved}, resp.Body) // until it is closed below
	}()
	t.Sleep(warm)
	before, start := moved.Load(), time.Now()
	t.Sleep(measure)
	rate := float64(moved.Load()-before) / time.Since(start).Seconds()
	c.Close()
	<-ended
	return rate, nil
}
