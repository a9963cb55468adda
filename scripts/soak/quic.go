package main

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quic-go/quic-go"
)

// The floods of first packets.
const (
	quicForged = "first packets that are noise"
	quicHellos = "handshakes that stop after the first message"
)

// quicFloods sends what HTTP/3 begins with and no more, beside visitors whose requests must not suffer, and
// then has connections and streams that say nothing.
func (t *trial) quicFloods() error {
	if err := t.serveTLS(quiet); err != nil {
		return err
	}
	rss, err := t.warm(true)
	if err != nil {
		return err
	}
	for _, kind := range []string{quicForged, quicHellos} {
		if err := t.beside(kind, true, rss, "quic-flood", t.secure, kind); err != nil {
			return err
		}
		if err := t.answersQUIC("after " + kind); err != nil {
			return err
		}
	}
	return t.idleQUIC()
}

// answersQUIC checks that a new visitor's handshake is answered.
func (t *trial) answersQUIC(when string) error {
	const limit = 15 * time.Second
	start := time.Now()
	err := t.Until(limit, 50*time.Millisecond, func() error {
		ctx, cancel := context.WithTimeout(t.Context, limit)
		defer cancel()
		c, err := quic.DialAddr(ctx, t.secure, t.greeting("mine", "h3"), nil)
		if err == nil {
			err = c.CloseWithError(0, "")
		}
		return err
	})
	took := time.Since(start)
	if err != nil {
		return fmt.Errorf("%s: %w", when, err)
	}
	t.check(took <= 5*time.Second, when+": a handshake of HTTP/3", seconds(took), "<= 5.0 s")
	return nil
}

// quicFlood is a role: packets for the server at addr, from ever new addresses.
func quicFlood(addr, kind string) error {
	if kind == quicForged {
		return untilTold(func(ctx context.Context) (int64, error) { return forgeInitials(ctx, addr) })
	}
	server, err := net.ResolveUDPAddr("udp", addr)
	if err != nil {
		return err
	}
	return untilTold(func(ctx context.Context) (int64, error) {
		var sent atomic.Int64
		var all sync.WaitGroup
		for range 32 {
			all.Go(func() {
				for ctx.Err() == nil {
					stopAfterHello(server)
					sent.Add(1)
				}
			})
		}
		all.Wait()
		return sent.Load(), nil
	})
}

// forgeInitials sends packets that begin as a connection does (RFC 9000, section 17.2.2), whose rest is noise.
func forgeInitials(ctx context.Context, addr string) (sent int64, err error) {
	packet := make([]byte, 1200)
	for ctx.Err() == nil {
		c, err := net.Dial("udp", addr)
		if err != nil {
			return sent, err
		}
		for range 16 {
			_, _ = rand.Read(packet)
			packet[0] = 0xc3 // long header, Initial, a packet number of 4 bytes
			binary.BigEndian.PutUint32(packet[1:], 1)
			packet[5], packet[14], packet[23] = 8, 8, 0 // of destination and source, and no token
			binary.BigEndian.PutUint16(packet[24:], 1200-26|0x4000)
			_, _ = c.Write(packet) // or it is lost
			sent++
		}
		c.Close()
	}
	return sent, nil
}

// deaf is a socket that hears nothing.
type deaf struct {
	net.PacketConn
	closed chan struct{}
	once   sync.Once
}

func (d *deaf) ReadFrom([]byte) (int, net.Addr, error) {
	<-d.closed
	return 0, nil, net.ErrClosed
}

func (d *deaf) Close() error {
	d.once.Do(func() { close(d.closed) })
	return d.PacketConn.Close()
}

func (d *deaf) SetReadDeadline(time.Time) error {
	d.once.Do(func() { close(d.closed) }) // it is how the reader is ended
	return nil
}

// stopAfterHello begins a handshake whose answer it does not hear.
func stopAfterHello(server net.Addr) {
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		time.Sleep(time.Millisecond)
		return
	}
	d := &deaf{PacketConn: conn, closed: make(chan struct{})}
	defer d.Close()
	tr := &quic.Transport{Conn: d}
	defer tr.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	_, _ = tr.Dial(ctx, server, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h3"}}, nil)
}

// idleQUIC has visitors who finish the handshake and then send nothing, or requests without an end.
func (t *trial) idleQUIC() error {
	conns, streams := pick(t, 200, 1_000), pick(t, 50, 200)
	rss := t.server.RSS()
	var silent, slow batch
	var all sync.WaitGroup
	all.Go(func() { t.idleConns(&silent, conns, 0) })
	all.Go(func() { t.idleConns(&slow, 20, streams) })
	during := t.send(paced{name: "mine", requests: 1_000, over: 10 * time.Second, secure: true})
	all.Wait()
	grown := (t.server.PeakRSS() - rss) / mib
	limit := slowLimit + 2*time.Second
	for name, b := range map[string]*batch{
		fmt.Sprintf("%d HTTP/3 connections without a request: cut off", conns):           &silent,
		fmt.Sprintf("20 HTTP/3 connections of %d requests without an end: cut", streams): &slow,
	} {
		figure := fmt.Sprintf("%d kept, the last after %s", b.kept, seconds(b.longest))
		if b.err != nil {
			figure += fmt.Sprintf("; not all began, as: %v", b.err)
		}
		t.check(b.kept == 0 && b.err == nil && b.longest <= limit, name, figure, "all, <= "+seconds(limit))
	}
	t.check(len(during.errors) == 0 && grown <= 128, "beside them: 1,000 good requests; growth of the server's memory",
		fmt.Sprintf("%s; p99 %.1f ms; %.1f MiB", during.failed(), ms(during.p99()), grown), "0 failed; <= 128 MiB")
	return nil
}

// batch is what became of connections, or of requests on them.
type batch struct {
	mu      sync.Mutex
	kept    int
	longest time.Duration
	err     error
}

func (b *batch) note(took time.Duration, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case err != nil:
		b.err = err
	case took == 0:
		b.kept++
	}
	b.longest = max(b.longest, took)
}

// idleConns opens n connections, each with requests whose header does not end, and notes when the server
// has cut them off; the connections themselves where there are no requests.
func (t *trial) idleConns(b *batch, n, requests int) {
	server, err := net.ResolveUDPAddr("udp", t.secure)
	if err != nil {
		b.note(1, err)
		return
	}
	slots := make(chan struct{}, 32) // that shake hands
	var all sync.WaitGroup
	for i := range n {
		if i%100 == 0 {
			conn, err := net.ListenPacket("udp", "127.0.0.1:0")
			if err != nil {
				b.note(1, err)
				break
			}
			tr := &quic.Transport{Conn: conn}
			defer func() { all.Wait(); tr.Close(); conn.Close() }()
			for range min(100, n-i) {
				slots <- struct{}{}
				all.Go(func() {
					ctx, cancel := context.WithTimeout(t.Context, slowLimit)
					defer cancel()
					c, err := tr.Dial(ctx, server, t.greeting("mine", "h3"), &quic.Config{KeepAlivePeriod: time.Second})
					<-slots
					if err != nil {
						b.note(1, err)
						return
					}
					t.idleConn(b, c, requests)
				})
			}
		}
	}
	all.Wait()
}

func (t *trial) idleConn(b *batch, c *quic.Conn, requests int) {
	defer c.CloseWithError(0, "")
	start := time.Now()
	const patience = slowLimit + 5*time.Second
	if requests == 0 {
		select {
		case <-c.Context().Done():
			b.note(max(time.Since(start), 1), nil)
		case <-time.After(patience):
			b.note(0, nil)
		}
		return
	}
	control, err := c.OpenUniStream()
	if err == nil {
		_, err = control.Write([]byte{0, 4, 0}) // a control stream, and empty SETTINGS (RFC 9114, section 7.2.4)
	}
	if err != nil {
		b.note(1, err)
		return
	}
	var all sync.WaitGroup
	for range requests {
		s, err := c.OpenStream()
		if err == nil {
			_, err = s.Write([]byte{1, 0x20, 0}) // HEADERS of 32 bytes, of which one comes
		}
		if err != nil {
			b.note(1, err)
			break
		}
		all.Go(func() {
			_ = s.SetReadDeadline(start.Add(patience))
			_, err := s.Read(make([]byte, 1))
			var late net.Error
			if errors.As(err, &late) && late.Timeout() && c.Context().Err() == nil {
				b.note(0, nil)
				return
			}
			b.note(max(time.Since(start), 1), nil)
		})
	}
	all.Wait()
}
