package mux

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"
)

// frame is one of a peer that sends what it likes.
func frame(kind, flags byte, id, length uint32, body string) string {
	b := []byte{0, kind, 0, flags}
	b = binary.BigEndian.AppendUint32(b, id)
	b = binary.BigEndian.AppendUint32(b, length)
	return string(b) + body
}

func data(flags byte, id uint32, body string) string {
	return frame(typeData, flags, id, uint32(len(body)), body)
}

// answer is what a server sends on the client's first stream, in pieces.
func answer() (pieces []string, body string) {
	pieces = []string{
		frame(typeWindow, flagACK, 1, 0, ""),
		data(0, 1, "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n"),
		frame(typePing, flagSYN, 0, 7, ""),
		data(0, 1, "no length tells where this"),
		data(0, 3, "a stream that nobody knows"),
		data(0, 1, " body ends"),
		frame(typeWindow, flagFIN, 1, 0, ""),
	}
	for _, p := range pieces {
		if p[1] == typeData && p[7] == 1 {
			body += p[12:]
		}
	}
	return pieces, body
}

// cutConn reads what the peer sent before it closed the connection, once the
// client opened its stream. The last bytes come together with io.EOF.
type cutConn struct {
	net.Conn
	opened chan struct{}
	sent   io.Reader
}

func (c cutConn) Read(b []byte) (int, error) {
	<-c.opened
	return c.sent.Read(b)
}

// TestCutAtEveryByte is the promise that a cut is never an end (R1): whatever
// part of an answer arrives before the connection ends, only the frame that
// says so ends the stream.
func TestCutAtEveryByte(t *testing.T) {
	pieces, body := answer()
	all := strings.Join(pieces, "")
	cuts := map[string]func(t *testing.T, sent string) (client net.Conn){
		"pipe": func(_ *testing.T, sent string) net.Conn {
			c, s := net.Pipe()
			go replay(s, sent, s.Close)
			return c
		},
		"pipe, end with the data": func(_ *testing.T, sent string) net.Conn {
			c, s := net.Pipe()
			cut := cutConn{c, make(chan struct{}), iotest.DataErrReader(strings.NewReader(sent))}
			go func() {
				awaitOpen(s)
				close(cut.opened)
				io.Copy(io.Discard, s) // until the client closes
				s.Close()
			}()
			return cut
		},
		"tcp": func(t *testing.T, sent string) net.Conn {
			c, s := tcpConns(t)
			go replay(s, sent, s.(*net.TCPConn).CloseWrite)
			return c
		},
		"tcp, reset": func(t *testing.T, sent string) net.Conn {
			c, s := tcpConns(t)
			go replay(s, sent, func() error {
				s.(*net.TCPConn).SetLinger(0)
				return s.Close()
			})
			return c
		},
	}
	for name, dial := range cuts {
		t.Run(name, func(t *testing.T) {
			for n := range len(all) + 1 {
				got, err := readAnswer(t, dial(t, all[:n]))
				switch {
				case errors.Is(err, ErrClosed) && !errors.Is(err, io.EOF) && strings.HasPrefix(body, got):
					if n == len(all) && name != "tcp, reset" {
						t.Fatalf("the whole answer: %v", err)
					}
				case err == io.EOF && n == len(all) && got == body:
				default:
					t.Fatalf("%d of %d bytes: read %q, %v", n, len(all), got, err)
				}
			}
		})
	}
}

// awaitOpen reads until the client opens its stream.
func awaitOpen(s net.Conn) error {
	first := make([]byte, 12)
	for first[1] != typeWindow {
		if _, err := io.ReadFull(s, first); err != nil {
			return err
		}
	}
	return nil
}

// replay is a peer that sends what it was told after the client opened its
// stream, and then cuts.
func replay(s net.Conn, sent string, cut func() error) {
	if err := awaitOpen(s); err != nil {
		return
	}
	done := make(chan struct{})
	go func() {
		io.Copy(io.Discard, s)
		close(done)
	}()
	io.WriteString(s, sent)
	cut()
	<-done
	s.Close()
}

// readAnswer reads a stream of a new session to its end.
func readAnswer(t *testing.T, c net.Conn) (string, error) {
	t.Helper()
	client, err := Client(c, Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	s, err := client.Open(t.Context())
	if err != nil {
		return "", err
	}
	var got bytes.Buffer
	b := make([]byte, 7)
	for {
		n, err := s.Read(b)
		got.Write(b[:n])
		if err != nil {
			return got.String(), err
		}
	}
}

// TestEndOutlivesTheSession: what arrived whole before the session ended is
// read whole after it.
func TestEndOutlivesTheSession(t *testing.T) {
	both(t, func(t *testing.T, client, server Session) {
		const size = 250_000 // more than half of the window: reading it would send an update
		a, b := streams(t, client, server)
		write(t, a, strings.Repeat("x", size))
		a.CloseWrite()
		b.CloseWrite()
		checkForgotten(t, server) // the end arrived
		client.Close()
		<-server.Done()
		got, err := io.ReadAll(b)
		if len(got) != size || err != nil {
			t.Errorf("read %d bytes and %v, want %d", len(got), err, size)
		}
		checkEnd(t, b)
	})
}

// slowCloser is a connection whose Close takes until released.
type slowCloser struct {
	net.Conn
	released chan struct{}
}

func (c slowCloser) Close() error {
	<-c.released
	return c.Conn.Close()
}

// TestCutWhileReading reads while the session is ending: what arrived is read,
// and then comes an error, never a bare io.EOF.
func TestCutWhileReading(t *testing.T) {
	const size = 250_000 // more than half of the window: reading it would send an update
	c, s := tcpConns(t)
	defer c.Close()
	slow := slowCloser{s, make(chan struct{})}
	server, err := Server(slow, Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	go io.Copy(io.Discard, c)
	write(t, c, data(flagSYN, 1, strings.Repeat("x", size)))
	b, err := server.Accept()
	if err != nil {
		t.Fatal(err)
	}
	b.SetReadDeadline(time.Now().Add(time.Minute))
	c.(*net.TCPConn).CloseWrite()
	<-server.Done()
	for n := 0; n < size; {
		k, err := b.Read(make([]byte, size))
		if err != nil {
			close(slow.released)
			t.Fatalf("%d of the %d bytes that arrived were read, then %v", n, size, err)
		}
		n += k
	}
	close(slow.released)
	if n, err := b.Read(make([]byte, 1)); n != 0 || !errors.Is(err, ErrClosed) || errors.Is(err, io.EOF) {
		t.Errorf("the end of a cut stream: %d, %v; want ErrClosed", n, err)
	}
}

// TestSessionEnd ends a session with streams in every state.
func TestSessionEnd(t *testing.T) {
	ends := map[string]func(client, server Session, conn net.Conn){
		"closed by the peer": func(_, server Session, _ net.Conn) { server.Close() },
		"closed here":        func(client, _ Session, _ net.Conn) { client.Close() },
		"connection cut":     func(_, _ Session, conn net.Conn) { conn.Close() },
	}
	for name, end := range ends {
		for kind, conns := range map[string]func(testing.TB) (net.Conn, net.Conn){"pipe": pipeConns, "tcp": tcpConns} {
			t.Run(name+", "+kind, func(t *testing.T) {
				c, s := conns(t)
				client, server := sessions(t, c, s, Config{})
				waiting, _ := streams(t, client, server)
				half, halfPeer := streams(t, client, server)
				half.CloseWrite()
				checkEnd(t, halfPeer)
				full, _ := streams(t, client, server)
				errs := make(chan error, 3)
				go func() {
					_, err := waiting.Read(make([]byte, 1))
					errs <- err
				}()
				go func() {
					_, err := full.Write(make([]byte, 1<<20))
					errs <- err
				}()
				go func() {
					_, err := client.Accept()
					errs <- err
				}()
				end(client, server, s)
				for range cap(errs) {
					if err := <-errs; !errors.Is(err, ErrClosed) || errors.Is(err, io.EOF) {
						t.Errorf("a call that was waiting: %v, want ErrClosed", err)
					}
				}
				<-client.Done()
				<-server.Done()
				for _, s := range []Session{client, server} {
					checkSessionEnded(t, s)
				}
				checkBroken(t, waiting, ErrClosed)
				if n, err := half.Read(make([]byte, 1)); n != 0 || !errors.Is(err, ErrClosed) || errors.Is(err, io.EOF) {
					t.Errorf("a stream that was half-closed: %d, %v; want ErrClosed", n, err)
				}
				for _, st := range []Stream{waiting, half, full} {
					st.Close() // whatever it says, it returns
				}
			})
		}
	}
}

func checkSessionEnded(t *testing.T, s Session) {
	t.Helper()
	if err := s.Err(); !errors.Is(err, ErrClosed) || errors.Is(err, ErrSilent) || errors.Is(err, io.EOF) {
		t.Errorf("Err: %v, want ErrClosed", err)
	}
	if _, err := s.Open(t.Context()); !errors.Is(err, ErrClosed) || errors.Is(err, io.EOF) {
		t.Errorf("Open: %v, want ErrClosed", err)
	}
	if _, err := s.Accept(); !errors.Is(err, ErrClosed) || errors.Is(err, io.EOF) {
		t.Errorf("Accept: %v, want ErrClosed", err)
	}
	if _, err := s.Ping(t.Context()); !errors.Is(err, ErrClosed) || errors.Is(err, io.EOF) {
		t.Errorf("Ping: %v, want ErrClosed", err)
	}
	if err := s.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
}

func TestErrTellsWho(t *testing.T) {
	c, s := net.Pipe()
	client, server := sessions(t, c, s, Config{})
	client.Close()
	<-server.Done()
	for want, s := range map[string]Session{
		"session closed: closed on this side":            client,
		"session closed: the peer closed the connection": server,
	} {
		if got := fmt.Sprint(s.Err()); got != want {
			t.Errorf("Err: %q, want %q", got, want)
		}
	}
}

// TestBadPeer sends what breaks the protocol: the session ends with an error.
func TestBadPeer(t *testing.T) {
	open := frame(typeWindow, flagSYN, 1, 0, "")
	for name, sent := range map[string]string{
		"another version":     "\x01" + frame(typePing, 0, 0, 0, "")[1:],
		"an unknown type":     frame(9, 0, 0, 0, ""),
		"an even stream":      frame(typeWindow, flagSYN, 2, 0, ""),
		"a stream twice":      open + open,
		"more than a window":  open + frame(typeData, 0, 1, 256<<10+1, strings.Repeat("x", 256<<10+1)),
		"a length of 4 GiB":   open + frame(typeData, 0, 1, 1<<32-1, "x"),
		"an HTTP request":     "GET / HTTP/1.1\r\nHost: example.com\r\n\r\n",
		"hashicorp's goodbye": frame(typeGoAway, 0, 0, 0, ""),
	} {
		t.Run(name, func(t *testing.T) {
			c, s := net.Pipe()
			go io.Copy(io.Discard, c)
			server, err := Server(s, Config{})
			if err != nil {
				t.Fatal(err)
			}
			defer server.Close()
			defer c.Close()
			c.SetWriteDeadline(time.Now().Add(time.Minute))
			io.WriteString(c, sent)
			<-server.Done()
			checkSessionEnded(t, server)
		})
	}
}

// deafConn fails to write once there is a ping to answer. What it has to read
// after that comes when the write has failed.
type deafConn struct {
	net.Conn
	reads  chan string
	failed chan struct{}
	fail   sync.Once
}

func (c *deafConn) Write(b []byte) (int, error) {
	if !strings.Contains(string(b), frame(typePing, flagACK, 0, 7, "")) {
		return len(b), nil
	}
	c.fail.Do(func() { close(c.failed) })
	return 0, errors.New("nobody is there to read it")
}

func (c *deafConn) Read(b []byte) (int, error) {
	s, ok := <-c.reads
	if !ok {
		return 0, io.EOF
	}
	return copy(b, s), nil
}

func (c *deafConn) SetReadDeadline(time.Time) error  { return nil }
func (c *deafConn) SetWriteDeadline(time.Time) error { return nil }
func (c *deafConn) Close() error                     { return nil }

// TestLastWords: what a peer said before it went is read, though an answer to it
// can't be sent any more.
func TestLastWords(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &deafConn{reads: make(chan string), failed: make(chan struct{})}
		s, err := Client(c, Config{})
		if err != nil {
			t.Fatal(err)
		}
		st, err := s.Open(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		c.reads <- data(0, 1, "first, ") + frame(typePing, flagSYN, 0, 7, "")
		<-c.failed
		synctest.Wait()
		if _, err := st.Write([]byte("x")); !errors.Is(err, ErrClosed) {
			t.Errorf("write: %v, want ErrClosed", err)
		}
		c.reads <- data(flagFIN, 1, "and last words")
		close(c.reads)
		got, err := io.ReadAll(st)
		if string(got) != "first, and last words" || err != nil {
			t.Errorf("read %q, %v", got, err)
		}
		<-s.Done()
	})
}
