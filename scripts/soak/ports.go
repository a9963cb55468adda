package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/revtun/tunnel/internal/rig"
)

// rawApp is a role: what knows no HTTP, by TCP and UDP at addr. A connection whose first byte is 's' is sent
// zeros without an end, any other and each datagram comes back.
func rawApp(addr string) error {
	packets, err := net.ListenPacket("udp", addr)
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- (&rig.App{}).Echo(context.Background(), packets) }()
	for {
		c, err := frugal{l}.Accept()
		if err != nil {
			return errors.Join(err, <-ended)
		}
		go func() {
			defer c.Close()
			first := make([]byte, 1)
			if _, err := c.Read(first); err != nil {
				return
			}
			if first[0] != 's' {
				_, _ = c.Write(first)
				_, _ = io.Copy(c, c)
			}
			for zeros := make([]byte, 64<<10); first[0] == 's'; {
				if _, err := c.Write(zeros); err != nil {
					return
				}
			}
		}()
	}
}

// port has a server give ports, and a client of the kind expose the raw app at one of them. It returns
// where visitors go.
func (t *trial) port(kind string, flags ...string) (client *rig.Proc, public string, err error) {
	ports, err := t.FreeRange(1)
	if err != nil {
		return nil, "", err
	}
	app, err := t.FreePort()
	if err != nil {
		return nil, "", err
	}
	if err := t.serve(append(flags, quiet, "--tcp-ports", ports, "--udp-ports", ports)...); err != nil {
		return nil, "", err
	}
	if _, err := t.role("raw", app); err != nil {
		return nil, "", err
	}
	if err := t.Listening(app); err != nil {
		return nil, "", err
	}
	client, err = t.Start(rig.Command{Path: filepath.Join(t.bin, "tunnel-client"), Args: []string{kind, app, "--server", "http://" + t.addr, "--name", "raw", "--json"}})
	if err != nil {
		return nil, "", err
	}
	if err := t.Until(rig.Patience, 5*time.Millisecond, func() error { return client.Printed(`"ready"`) }); err != nil {
		return nil, "", err
	}
	var ready struct{ URL string }
	line, _, _ := strings.Cut(client.Log()[strings.Index(client.Log(), "{"):], "\n")
	if err := json.Unmarshal([]byte(line), &ready); err != nil {
		return nil, "", err
	}
	u, err := url.Parse(ready.URL)
	if err != nil {
		return nil, "", err
	}
	_, err = t.client(t.addr, "others")
	return client, net.JoinHostPort("127.0.0.1", u.Port()), err
}

// tcpPorts has visitors of a port who want all and read nothing, beside others of the same port and of a name.
func (t *trial) tcpPorts() error {
	n := pick(t, 200, 1_000)
	client, public, err := t.port("tcp")
	if err != nil {
		return err
	}
	before, echoBefore := t.besidePort(public)
	server, clients := t.server.RSS(), client.RSS()
	open := make([]net.Conn, 0, n)
	defer func() {
		for _, c := range open {
			c.Close()
		}
	}()
	for i := range n {
		c, err := unread(public, i)
		if err != nil {
			return fmt.Errorf("visitor %d: %w", i, err)
		}
		open = append(open, c)
	}
	t.Sleep(pick(t, 2*time.Second, 10*time.Second)) // until all is full
	during, echo := t.besidePort(public)
	done := fmt.Sprintf("%d visitors of a port that never read: ", n)
	t.atMost(done+"growth of the server's memory", "%.0f MB", (t.server.PeakRSS()-server)/mb, (float64(n)*stalledServer+sessionExtra)/mb)
	t.atMost(done+"growth of the client's memory", "%.0f MB", (client.PeakRSS()-clients)/mb, (float64(n)*stalledClient+sessionExtra)/mb)
	for _, one := range []struct {
		whose   string
		was, is *latencies
	}{{"connections of the same port", echoBefore, echo}, {"requests of another tunnel", before, during}} {
		was, is := one.was.p99(), one.is.p99()
		t.check(len(one.is.errors) == 0 && is <= max(2*was, 50*time.Millisecond), done+"p99 of "+one.whose,
			fmt.Sprintf("%.2f (%.1f ms, before %.1f; %s)", float64(is)/float64(was), ms(is), ms(was), one.is.failed()), "<= 2.00 or 50 ms, 0 failed")
	}
	return nil
}

// unread is a visitor who asks for all, with a small buffer to receive it.
func unread(addr string, i int) (net.Conn, error) {
	d := net.Dialer{Timeout: 10 * time.Second, LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 1, byte(1+i%8))},
		Control: func(_, _ string, c syscall.RawConn) error {
			var err error
			outer := c.Control(func(fd uintptr) { err = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, 4096) })
			return errors.Join(outer, err)
		}}
	c, err := d.Dial("tcp", addr)
	if err == nil {
		_, err = io.WriteString(c, "s")
	}
	return c, err
}

// besidePort makes requests of others, and connections to the port that are to be echoed.
func (t *trial) besidePort(public string) (requests, echoes *latencies) {
	var both sync.WaitGroup
	n, over := pick(t, 600, 2_000), pick(t, 3*time.Second, 10*time.Second)
	both.Go(func() { requests = t.send(paced{name: "others", requests: n, over: over}) })
	both.Go(func() { echoes = pacedEchoes(public, n/4, over) })
	both.Wait()
	return requests, echoes
}

// pacedEchoes makes n connections, each of which says something and waits for it to come back.
func pacedEchoes(addr string, n int, over time.Duration) *latencies {
	l := &latencies{}
	var mu sync.Mutex
	var all sync.WaitGroup
	for i, start := 0, time.Now(); i < n; i++ {
		time.Sleep(time.Until(start.Add(time.Duration(i) * over / time.Duration(n))))
		all.Go(func() {
			begin := time.Now()
			err := echoOnce(addr)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				l.errors = append(l.errors, err)
				return
			}
			third := &l.thirds[i*3/n]
			*third = append(*third, time.Since(begin))
		})
	}
	all.Wait()
	return l
}

func echoOnce(addr string) error {
	c, err := net.DialTimeout("tcp", addr, 10*time.Second)
	if err != nil {
		return err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(30 * time.Second))
	const what = "come back"
	if _, err := io.WriteString(c, what); err != nil {
		return err
	}
	got := make([]byte, len(what))
	if _, err := io.ReadFull(c, got); err != nil {
		return err
	}
	if string(got) != what {
		return fmt.Errorf("%q came back", got)
	}
	return c.(*net.TCPConn).CloseWrite()
}

// udpSpray sends datagrams from more addresses than a port remembers, beside one visitor who talks to the app
// all the time, and requests of another tunnel.
func (t *trial) udpSpray() error {
	const most = 1_000 // --udp-visitors
	n := pick(t, 4_000, 20_000)
	client, public, err := t.port("udp")
	if err != nil {
		return err
	}
	t.send(paced{name: "others", requests: 600, over: time.Second}) // warms it up
	before := t.send(paced{name: "others", requests: 900, over: 3 * time.Second})
	talk := newTalk(public)
	if err := t.Until(rig.Patience, 10*time.Millisecond, func() error { return talk.ask() }); err != nil {
		return err
	}
	server, clients := t.server.RSS(), client.RSS()
	ctx, stop := context.WithCancel(t.Context)
	var all sync.WaitGroup
	all.Go(func() { talk.on(ctx) })
	spraying, over := time.Now(), time.Duration(n)*time.Second/sprayRate
	all.Go(func() { spray(public, n); stop() })
	during := t.send(paced{name: "others", requests: 900, over: over})
	all.Wait()
	stop()
	took := time.Since(spraying)
	done := fmt.Sprintf("datagrams from %d addresses within %s: ", n, seconds(took))
	t.atMost(done+"growth of the server's memory", "%.0f MB", (t.server.PeakRSS()-server)/mb, 64)
	t.atMost(done+"growth of the client's memory", "%.0f MB", (client.PeakRSS()-clients)/mb, 64)
	t.atMost(done+"sockets of the client", "%.0f", client.Descriptors(), most+50)
	asked, lost := talk.asked.Load(), talk.lost.Load()
	t.check(lost*10 <= asked, done+"a visitor who was there before", fmt.Sprintf("%d of %d answers were lost", lost, asked), "a tenth at most")
	t.check(len(during.errors) == 0, done+"requests of another tunnel",
		fmt.Sprintf("%s; p99 %.1f ms, before %.1f", during.failed(), ms(during.p99()), ms(before.p99())), "0 failed")
	start := time.Now()
	if err := t.Until(rig.Patience, 10*time.Millisecond, func() error { return newTalk(public).ask() }); err != nil {
		return err
	}
	t.check(time.Since(start) <= 3*time.Second, done+"a new visitor afterwards", seconds(time.Since(start)), "<= 3.0 s")
	return nil
}

// sprayRate is how many addresses a second send, four times as many as a port takes.
const sprayRate = 2_000

// spray sends three datagrams each from n addresses.
func spray(addr string, n int) {
	for i, start := 0, time.Now(); i < n; i++ {
		time.Sleep(time.Until(start.Add(time.Duration(i) * time.Second / sprayRate)))
		c, err := net.Dial("udp", addr)
		if err != nil {
			time.Sleep(time.Millisecond)
			continue
		}
		for range 3 {
			_, _ = c.Write([]byte("spray"))
		}
		c.Close()
	}
}

// talk is a visitor who sends a datagram whenever the last one has come back.
type talk struct {
	addr        string
	conn        net.Conn
	asked, lost atomic.Int64
}

func newTalk(addr string) *talk { return &talk{addr: addr} }

func (k *talk) ask() error {
	if k.conn == nil {
		var err error
		if k.conn, err = net.Dial("udp", k.addr); err != nil {
			return err
		}
	}
	n := k.asked.Add(1)
	what := fmt.Sprintf("talk %d", n)
	_, _ = io.WriteString(k.conn, what)
	_ = k.conn.SetReadDeadline(time.Now().Add(500 * time.Millisecond))
	for buf := make([]byte, 100); ; {
		m, err := k.conn.Read(buf)
		if err != nil {
			k.lost.Add(1)
			return err
		}
		if string(buf[:m]) == what {
			return nil
		}
	}
}

func (k *talk) on(ctx context.Context) {
	k.asked.Store(0)
	k.lost.Store(0)
	for ctx.Err() == nil {
		_ = k.ask() // it counts
		time.Sleep(5 * time.Millisecond)
	}
}
