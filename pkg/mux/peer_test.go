package mux

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"testing"
	"time"

	hashicorp "github.com/hashicorp/yamux"
)

const backlog = 4

// withHashicorp runs f with a session of ours and one of hashicorp's, in both
// roles.
func withHashicorp(t *testing.T, f func(t *testing.T, ours Session, theirs *hashicorp.Session)) {
	for _, role := range []string{"client", "server"} {
		for kind, conns := range map[string]func(testing.TB) (net.Conn, net.Conn){"pipe": pipeConns, "tcp": tcpConns} {
			t.Run("they are the "+role+", "+kind, func(t *testing.T) {
				a, b := conns(t)
				c := hashicorp.DefaultConfig()
				c.LogOutput = io.Discard
				c.AcceptBacklog = backlog
				their, our := hashicorp.Client, Server
				if role == "server" {
					their, our = hashicorp.Server, Client
				}
				theirs, err := their(b, c)
				if err != nil {
					t.Fatal(err)
				}
				defer theirs.Close()
				ours, err := our(a, Config{})
				if err != nil {
					t.Fatal(err)
				}
				defer ours.Close()
				f(t, ours, theirs)
			})
		}
	}
}

// mixed opens a stream, from our side or theirs.
func mixed(t *testing.T, ours Session, theirs *hashicorp.Session, weOpen bool) (Stream, *hashicorp.Stream) {
	t.Helper()
	if weOpen {
		s, err := ours.Open(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		p, err := theirs.AcceptStream()
		if err != nil {
			t.Fatal(err)
		}
		return s, p
	}
	p, err := theirs.OpenStream()
	if err != nil {
		t.Fatal(err)
	}
	s, err := ours.Accept()
	if err != nil {
		t.Fatal(err)
	}
	return s, p
}

func TestHashicorpEcho(t *testing.T) {
	withHashicorp(t, func(t *testing.T, ours Session, theirs *hashicorp.Session) {
		for _, weOpen := range []bool{true, false} {
			s, p := mixed(t, ours, theirs, weOpen)
			write(t, s, "ping")
			checkRead(t, p, "ping")
			write(t, p, "pong")
			checkRead(t, s, "pong")
			if err := errors.Join(s.Close(), p.Close()); err != nil {
				t.Error(err)
			}
			checkForgotten(t, ours)
		}
		if _, err := ours.Ping(t.Context()); err != nil {
			t.Errorf("our ping: %v", err)
		}
		if _, err := theirs.Ping(); err != nil {
			t.Errorf("their ping: %v", err)
		}
	})
}

func TestHashicorpHalfClose(t *testing.T) {
	withHashicorp(t, func(t *testing.T, ours Session, theirs *hashicorp.Session) {
		for _, weOpen := range []bool{true, false} {
			// We end first. Their Close is their half-close: they still read after it.
			s, p := mixed(t, ours, theirs, weOpen)
			write(t, s, "question")
			s.CloseWrite()
			checkRead(t, p, "question")
			checkEnd(t, p)
			write(t, p, strings.Repeat("x", 200_000))
			p.Close()
			checkRead(t, s, strings.Repeat("x", 200_000))
			checkEnd(t, s)

			s, p = mixed(t, ours, theirs, weOpen)
			write(t, p, "question")
			p.Close()
			checkRead(t, s, "question")
			checkEnd(t, s)
			write(t, s, "answer")
			s.Close()
			checkRead(t, p, "answer")
			checkEnd(t, p)
		}
	})
}

func TestHashicorpReset(t *testing.T) {
	withHashicorp(t, func(t *testing.T, ours Session, theirs *hashicorp.Session) {
		s, p := mixed(t, ours, theirs, true)
		write(t, s, "cut")
		s.Reset()
		p.SetReadDeadline(time.Now().Add(time.Minute))
		if b, err := io.ReadAll(p); !errors.Is(err, hashicorp.ErrConnectionReset) {
			t.Errorf("they read %q, %v; want a reset", b, err)
		}
		p.Close()
		// They reset what is over their backlog.
		var last Stream
		for range backlog + 1 {
			var err error
			if last, err = ours.Open(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		checkBroken(t, last, ErrReset)
	})
}

func TestHashicorpBulk(t *testing.T) {
	withHashicorp(t, func(t *testing.T, ours Session, theirs *hashicorp.Session) {
		const size = 10 << 20
		body := make([]byte, size)
		rand.NewChaCha8([32]byte{}).Read(body)
		sum := sha256.Sum256(body)
		for _, weOpen := range []bool{true, false} {
			s, p := mixed(t, ours, theirs, weOpen)
			errs := make(chan error, 4)
			for _, end := range []io.ReadWriteCloser{s, p} {
				go func() {
					_, err := end.Write(body)
					if cw, ok := end.(interface{ CloseWrite() error }); ok {
						errs <- errors.Join(err, cw.CloseWrite())
					} else {
						errs <- errors.Join(err, end.Close())
					}
				}()
				go func() {
					h := sha256.New()
					_, err := io.Copy(h, end)
					if err == nil && !bytes.Equal(h.Sum(nil), sum[:]) {
						err = errors.New("other bytes arrived than were sent")
					}
					errs <- err
				}()
			}
			for range cap(errs) {
				if err := <-errs; err != nil {
					t.Error(err)
				}
			}
		}
	})
}

// TestHashicorpCloseFreesTheWriter: our Close under their Write.
func TestHashicorpCloseFreesTheWriter(t *testing.T) {
	withHashicorp(t, func(t *testing.T, ours Session, theirs *hashicorp.Session) {
		s, p := mixed(t, ours, theirs, true)
		t.Parallel() // in real time
		written := make(chan error, 1)
		go func() {
			_, err := p.Write(make([]byte, 1<<20))
			written <- err
		}()
		checkRead(t, s, "\x00")
		s.Close()
		select {
		case err := <-written:
			if !errors.Is(err, hashicorp.ErrConnectionReset) {
				t.Errorf("their write: %v, want a reset", err)
			}
		case <-time.After(time.Minute):
			t.Error("their writer waits for ever")
		}
		p.Close()
	})
}

func TestHashicorpSessionEnd(t *testing.T) {
	withHashicorp(t, func(t *testing.T, ours Session, theirs *hashicorp.Session) {
		s, p := mixed(t, ours, theirs, true)
		write(t, p, "begins")
		checkRead(t, s, "begins")
		theirs.Close()
		<-ours.Done()
		checkSessionEnded(t, ours)
		checkBroken(t, s, ErrClosed)
	})
	withHashicorp(t, func(t *testing.T, ours Session, theirs *hashicorp.Session) {
		_, p := mixed(t, ours, theirs, true)
		ours.Close()
		<-theirs.CloseChan()
		p.Read(make([]byte, 1)) // io.EOF, theirs to sort out
	})
}
