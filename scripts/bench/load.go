package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/revtun/tunnel/internal/rig"
)

// A load is many visitors that make a small exchange each, again and again.
type load struct {
	addr, host    string                                   // of visitors over plain HTTP/1.1
	dial          func(deadline time.Time) (caller, error) // other visitors, if set
	conns         int                                      // visitors
	warm, measure time.Duration
	mark          func() // called when measuring begins and ends, if set
}

// A caller is a visitor that makes one small exchange at a time, and checks what comes back.
type caller interface {
	small() error
	close()
}

// loadResult is what a load got between the two marks.
type loadResult struct {
	latency histogram
	elapsed time.Duration
}

// The phases of a load.
const (
	warming = iota
	measuring
	over
)

var errNoAnswer = errors.New("no answer in time")

// run makes the load. An answer that is not the app's fails the whole load.
func (l *load) run() (*loadResult, error) {
	var phase atomic.Int32
	results := make([]*histogram, l.conns)
	errs := make([]error, l.conns)
	deadline := time.Now().Add(l.warm + l.measure + patience)
	var all, served sync.WaitGroup
	served.Add(l.conns)
	for i := range l.conns {
		results[i] = &histogram{}
		all.Go(func() { errs[i] = l.visit(&phase, results[i], deadline, sync.OnceFunc(served.Done)) })
	}
	served.Wait() // connecting is not what is measured
	time.Sleep(l.warm)
	l.marked()
	start := time.Now()
	phase.Store(measuring)
	time.Sleep(l.measure)
	phase.Store(over)
	r := &loadResult{elapsed: time.Since(start)}
	l.marked()
	all.Wait()
	if err := errors.Join(errs...); err != nil {
		return nil, first(err)
	}
	for _, h := range results {
		r.latency.merge(h)
	}
	if r.latency.total == 0 {
		return nil, errNoAnswer
	}
	return r, nil
}

func (l *load) marked() {
	if l.mark != nil {
		l.mark()
	}
}

// first cuts a joined error down to its first line.
func first(err error) error {
	line, _, more := bytes.Cut([]byte(err.Error()), []byte("\n"))
	if !more {
		return err
	}
	return fmt.Errorf("%s (and more)", line)
}

// visit is one visitor, until phase is over. It calls served after its first answer, or when there is
// none.
func (l *load) visit(phase *atomic.Int32, h *histogram, deadline time.Time, served func()) error {
	defer served()
	v, err := l.caller(deadline)
	if err != nil {
		return err
	}
	defer v.close()
	last := time.Now()
	for {
		if err := v.small(); err != nil {
			return err
		}
		served()
		now := time.Now()
		switch phase.Load() {
		case measuring:
			h.add(now.Sub(last))
		case over:
			return nil
		}
		last = now
	}
}

func (l *load) caller(deadline time.Time) (caller, error) {
	if l.dial != nil {
		return l.dial(deadline)
	}
	return dialVisitor(l.addr, l.host, deadline)
}

// A visitor is a connection that makes the small request.
type visitor struct {
	conn    net.Conn
	request []byte
	buf     []byte
	known   bool // the first answer was read, and has a Content-Length
}

func dialVisitor(addr, host string, deadline time.Time) (*visitor, error) {
	c, err := net.DialTimeout("tcp", addr, patience)
	if err != nil {
		return nil, err
	}
	return newVisitor(c, host), c.SetDeadline(deadline)
}

func newVisitor(c net.Conn, host string) *visitor {
	return &visitor{
		conn:    c,
		request: []byte("GET /small HTTP/1.1\r\nHost: " + host + "\r\n\r\n"),
		buf:     make([]byte, 4096),
	}
}

func (v *visitor) close() { v.conn.Close() }

// small makes one request and checks its answer. The first answer of a connection is parsed as HTTP;
// the others only have to have a 200 and the same body behind their header, which costs next to
// nothing.
func (v *visitor) small() error {
	if _, err := v.conn.Write(v.request); err != nil {
		return err
	}
	n := 0
	for {
		m, err := v.conn.Read(v.buf[n:])
		if err != nil {
			return fmt.Errorf("after %d bytes of an answer: %w", n, err)
		}
		n += m
		answer := v.buf[:n]
		end := bytes.Index(answer, []byte("\r\n\r\n"))
		if end < 0 || n < end+4+len(rig.Hello) {
			if n == len(v.buf) || end >= 0 && !bytes.HasPrefix(answer, []byte("HTTP/1.1 200 ")) {
				return fmt.Errorf("not the app's answer: %.60q", answer)
			}
			continue
		}
		if !bytes.HasPrefix(answer, []byte("HTTP/1.1 200 ")) || string(answer[end+4:]) != rig.Hello {
			return fmt.Errorf("not the app's answer: %.60q", answer)
		}
		if !v.known {
			v.known = true
			return checkSmall(bytes.NewReader(answer))
		}
		return nil
	}
}

// checkSmall reads an answer that must be [rig.Hello], with its length.
func checkSmall(r io.Reader) error {
	resp, err := http.ReadResponse(bufio.NewReader(r), nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("status %s", resp.Status)
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1024))
	if err != nil {
		return err
	}
	if string(body) != rig.Hello || resp.ContentLength != int64(len(rig.Hello)) {
		return fmt.Errorf("%d bytes %.40q, Content-Length %d", len(body), body, resp.ContentLength)
	}
	return nil
}
