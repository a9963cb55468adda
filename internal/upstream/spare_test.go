package upstream

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"
)

// An upgrade waits for the connection of HTTP/1.1 that an origin of HTTP/2 is about to
// attach: its first one, and the next where the last was taken along by an upgrade. An
// origin that attaches none is not waited for.
func TestLinesWaitForASpare(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		add := func(p *Lines, h2 bool) {
			here, there := net.Pipe()
			p.Add(lineOn(t, h2, http.HandlerFunc(grant), here, there))
		}
		p := NewLines(0)
		add(p, true)
		results := make(chan error, 10)
		ask := func() {
			go func() {
				req := asked(t.Context(), "GET", "/", nil)
				req.Header.Set("Connection", "Upgrade")
				req.Header.Set("Upgrade", "websocket")
				res, err := p.RoundTrip(req)
				if err == nil {
					defer res.Body.Close()
				}
				if err == nil && res.StatusCode != http.StatusSwitchingProtocols {
					err = errors.New(res.Status)
				}
				results <- err
			}()
			synctest.Wait()
		}
		for n := range 2 {
			ask()
			select {
			case err := <-results:
				t.Fatalf("upgrade %d did not wait: %v", n, err)
			default:
			}
			add(p, false)
			if err := <-results; err != nil {
				t.Fatalf("upgrade %d: %v", n, err)
			}
			time.Sleep(2 * spareTime)
		}

		p = NewLines(0)
		add(p, true)
		since := time.Now()
		ask()
		if err := <-results; !errors.Is(err, ErrNoUpgrade) || time.Since(since) > spareTime+lookAgain {
			t.Errorf("got %v after %v, of an origin without HTTP/1.1", err, time.Since(since))
		}
		since = time.Now()
		ask()
		if err := <-results; !errors.Is(err, ErrNoUpgrade) || time.Since(since) > 0 {
			t.Errorf("got %v after %v the second time", err, time.Since(since))
		}
	})
}

// What comes while the origin's first connection is about to be there waits for it; where
// none comes, or the last one has gone, there is nothing to wait for.
func TestLinesWaitForTheFirst(t *testing.T) {
	for _, upgrade := range []string{"", "websocket"} {
		synctest.Test(t, func(t *testing.T) {
			results := make(chan error, 10)
			ask := func(p *Lines) {
				go func() {
					req := asked(t.Context(), "GET", "/", nil)
					if upgrade != "" {
						req.Header.Set("Connection", "Upgrade")
						req.Header.Set("Upgrade", upgrade)
					}
					res, err := p.RoundTrip(req)
					if err == nil {
						res.Body.Close()
					}
					results <- err
				}()
				synctest.Wait()
			}
			p, none := NewLines(0), NewLines(0)
			ask(p)
			ask(none)
			select {
			case err := <-results:
				t.Fatalf("it did not wait: %v", err)
			default:
			}
			here, there := net.Pipe()
			app := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if upgrade != "" {
					grant(w, r)
				}
			})
			p.Add(lineOn(t, false, app, here, there))
			if err := <-results; err != nil {
				t.Error(err)
			}
			since := time.Now()
			none.Abandon()
			if err := <-results; !errors.Is(err, ErrNotSent) || time.Since(since) > 0 {
				t.Errorf("got %v after %v, where no connection comes", err, time.Since(since))
			}
			there.Close()
			synctest.Wait()
			ask(p)
			if err := <-results; !errors.Is(err, ErrNotSent) || time.Since(since) > 0 {
				t.Errorf("got %v after %v, where the last connection has gone", err, time.Since(since))
			}
		})
	}
}

// A request that waits for 100 (Continue) goes by HTTP/1.1 where that is free, as a server
// of HTTP/2 may answer by itself; another one, and where none is free, by HTTP/2.
func TestLinesExpect(t *testing.T) {
	app := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.ProtoMajor) })
	p := NewLines(0)
	for _, h2 := range []bool{true, false} {
		here, there := tcpPair(t)
		p.Add(lineOn(t, h2, app, here, there))
	}
	for expect, want := range map[string]string{"100-continue": "1", "": "2"} {
		req := asked(t.Context(), "POST", "/", strings.NewReader("body"))
		req.ContentLength = 4
		if expect != "" {
			req.Header.Set("Expect", expect)
		}
		res, err := p.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		got, _ := io.ReadAll(res.Body)
		res.Body.Close()
		if string(got) != want {
			t.Errorf("with Expect %q it came by HTTP/%s", expect, got)
		}
	}
}

// grant upgrades as asked for.
func grant(w http.ResponseWriter, _ *http.Request) {
	conn, brw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		http.Error(w, err.Error(), http.StatusNotImplemented)
		return
	}
	defer conn.Close()
	brw.WriteString("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
	brw.Flush()
}

// Where the answer to a PING waits behind an answer to a request, that is a sign of
// life. Silence is none.
func TestLineLivesByAnyByte(t *testing.T) {
	for name, speaks := range map[string]bool{"speaks": true, "silent": false} {
		t.Run(name, func(t *testing.T) {
			line, f, _ := framed(t)
			p := NewLines(0)
			p.Add(line)
			asking := make(chan bool, 1)
			go func() {
				ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
				defer cancel()
				asking <- p.Alive(ctx)
			}()
			for {
				frame, err := f.ReadFrame()
				if err != nil {
					t.Fatal(err)
				}
				if _, ok := frame.(*http2.PingFrame); ok {
					break
				}
			}
			if speaks {
				f.WriteWindowUpdate(0, 1)
			}
			if alive := <-asking; alive != speaks {
				t.Errorf("alive: %v", alive)
			}
		})
	}
}

// A connection of HTTP/1.1 beside one of HTTP/2 is no reason to doubt that. Another of
// HTTP/2 is.
func TestCheckForASpare(t *testing.T) {
	line, _, _ := framed(t)
	next, _, _ := framed(t)
	spare, _ := lineTo(t, false, http.HandlerFunc(grant))
	p := NewLines(0)
	for _, l := range []*Line{line, next, spare} {
		p.Add(l)
	}
	for _, one := range []struct {
		added *Line
		asks  int
	}{{spare, 0}, {next, 1}} {
		p.Check(one.added)
		line.mu.Lock()
		if n := len(line.asking); n != one.asks {
			t.Errorf("%d ask the line for a sign of life, want %d", n, one.asks)
		}
		line.mu.Unlock()
	}
}

// onConn is a listener that has one connection to give, and ends with it.
type onConn struct {
	conns chan net.Conn
	ended chan struct{}
	once  sync.Once
}

func (l *onConn) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.ended:
		return nil, net.ErrClosed
	}
}

func (l *onConn) Close() error   { l.once.Do(func() { close(l.ended) }); return nil }
func (l *onConn) Addr() net.Addr { return new(net.TCPAddr) }
