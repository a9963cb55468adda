package mux

import (
	"fmt"
	"io"
	"math"
	"net"
	"testing"
	"time"
)

// BenchmarkStreamEcho is a small request and its answer on a kept stream.
func BenchmarkStreamEcho(b *testing.B) {
	c, s := tcpConns(b)
	client, server := sessions(b, c, s, Config{})
	near, far := streams(b, server, client)
	go io.Copy(far, onlyReader{far})
	buf := make([]byte, 512)
	b.ReportAllocs()
	b.SetBytes(int64(len(buf)))
	for b.Loop() {
		if _, err := near.Write(buf); err != nil {
			b.Fatal(err)
		}
		if _, err := io.ReadFull(near, buf); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkStreamWrite is a bulk transfer in writes of 32 KiB.
func BenchmarkStreamWrite(b *testing.B) { streamWrite(b, nil) }

// BenchmarkBudgetWrite is that, where what arrives is counted.
func BenchmarkBudgetWrite(b *testing.B) { streamWrite(b, NewBudget(1<<30)) }

func streamWrite(b *testing.B, budget *Budget) {
	c, s := tcpConns(b)
	client, server := sessions(b, c, s, Config{Budget: budget})
	near, far := streams(b, server, client)
	done := make(chan error, 1)
	go func() {
		_, err := io.Copy(io.Discard, far)
		done <- err
	}()
	buf := make([]byte, 32<<10)
	b.ReportAllocs()
	b.SetBytes(int64(len(buf)))
	for b.Loop() {
		if _, err := near.Write(buf); err != nil {
			b.Fatal(err)
		}
	}
	near.CloseWrite()
	if err := <-done; err != nil {
		b.Fatal(err)
	}
}

// BenchmarkOpen is a stream that is opened, accepted and closed.
func BenchmarkOpen(b *testing.B) {
	c, s := tcpConns(b)
	client, server := sessions(b, c, s, Config{})
	go func() {
		for {
			st, err := client.Accept()
			if err != nil {
				return
			}
			io.Copy(io.Discard, st)
			st.Close()
		}
	}()
	b.ReportAllocs()
	for b.Loop() {
		st, err := server.Open(b.Context())
		if err != nil {
			b.Fatal(err)
		}
		st.CloseWrite()
		if _, err := st.Read(make([]byte, 1)); err != io.EOF {
			b.Fatal(err)
		}
		st.Close()
	}
}

// BenchmarkHeader is the writing and the reading of a frame's header.
func BenchmarkHeader(b *testing.B) {
	buf := make([]byte, 0, headerSize)
	b.ReportAllocs()
	for i := uint32(0); b.Loop(); i++ {
		buf = appendHeader(buf[:0], header{kind: typeData, id: i, length: i})
		if h, ok := parseHeader(buf); !ok || h.id != i {
			b.Fatal(h)
		}
	}
}

// discardConn takes everything and gives what is sent, or nothing.
type discardConn struct {
	net.Conn
	sent   io.Reader
	closed chan struct{}
}

func (c discardConn) Read(b []byte) (int, error) {
	if c.sent != nil {
		return c.sent.Read(b)
	}
	<-c.closed
	return 0, io.EOF
}

func (c discardConn) Write(b []byte) (int, error)      { return len(b), nil }
func (c discardConn) SetWriteDeadline(time.Time) error { return nil }
func (c discardConn) Close() error                     { close(c.closed); return nil }

// BenchmarkOutbox is the sending of a frame without payload, and of small writes,
// to a connection that costs nothing.
func BenchmarkOutbox(b *testing.B) {
	open := func(b *testing.B) (*session, *stream) {
		s := newSession(discardConn{closed: make(chan struct{})}, Config{KeepAlive: -1}, 1)
		b.Cleanup(func() { s.Close() })
		st, err := s.Open(b.Context())
		if err != nil {
			b.Fatal(err)
		}
		return s, st.(*stream)
	}
	b.Run("frame", func(b *testing.B) {
		s, _ := open(b)
		b.ReportAllocs()
		for i := uint32(0); b.Loop(); i++ {
			s.out.put(header{kind: typeWindow, id: 1, length: i})
		}
	})
	for _, size := range []int{128, 4 << 10, 32 << 10} {
		b.Run(fmt.Sprint("write of ", size), func(b *testing.B) {
			_, st := open(b)
			buf := make([]byte, size)
			b.ReportAllocs()
			b.SetBytes(int64(size))
			for b.Loop() {
				st.grant(uint32(size))
				if _, err := st.Write(buf); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// repeat reads b again and again.
type repeat struct {
	b    []byte
	at   int
	left int // times
}

func (r *repeat) Read(b []byte) (n int, err error) {
	for n < len(b) && r.left > 0 {
		k := copy(b[n:], r.b[r.at:])
		n += k
		if r.at += k; r.at == len(r.b) {
			r.at = 0
			r.left--
		}
	}
	if n == 0 {
		return 0, io.EOF
	}
	return n, nil
}

// BenchmarkReceive is a data frame that arrives, and is read.
func BenchmarkReceive(b *testing.B) { receive(b, nil) }

// BenchmarkBudgetReceive is that, where what arrives is counted.
func BenchmarkBudgetReceive(b *testing.B) { receive(b, NewBudget(1<<30)) }

func receive(b *testing.B, budget *Budget) {
	for _, size := range []int{16, 128, 4 << 10} {
		b.Run(fmt.Sprint("frames of ", size), func(b *testing.B) {
			s := newSession(discardConn{closed: make(chan struct{})}, Config{KeepAlive: -1, Budget: budget}, 1)
			defer s.Close()
			o, err := s.Open(b.Context())
			if err != nil {
				b.Fatal(err)
			}
			st := o.(*stream)
			sent := &repeat{b: []byte(data(0, st.id, string(make([]byte, size)))), left: math.MaxInt}
			buf := make([]byte, busyRead)
			r := &reader{src: sent, seen: s.life.seen, buf: buf, small: buf[:idleRead]}
			got := make([]byte, 32<<10)
			unread := 0
			b.ReportAllocs()
			b.SetBytes(int64(size))
			for b.Loop() {
				if err := s.frame(r); err != nil {
					b.Fatal(err)
				}
				if unread += size; unread > 16<<10 {
					n, _ := st.Read(got)
					unread -= n
				}
			}
		})
	}
}

// onlyReader hides everything but Read.
type onlyReader struct{ io.Reader }
