package upstream

import (
	"context"
	"errors"
	"io"
	"math"
	"net"
	"net/http"
	"net/textproto"
	"time"

	"github.com/revtun/tunnel/internal/proxy"
)

// continueTime is how long an origin may leave Expect: 100-continue unanswered before
// the body goes out all the same, see [proxy.Transport].
const continueTime = 5 * time.Second

var errLineUsed = errors.New("the connection was used up")

// transport1 sends on the line's connection, and on no other.
func (l *Line) transport1() *proxy.Transport {
	conns := make(chan net.Conn, 1)
	conns <- l.conn
	return &proxy.Transport{
		MaxIdle: 1, IdleTimeout: math.MaxInt64, ContinueTimeout: continueTime,
		Dial: func(context.Context) (net.Conn, error) {
			select {
			case conn := <-conns:
				return conn, nil
			default:
				return nil, errLineUsed
			}
		},
	}
}

// take1 makes the line busy, unless it is. It is called with none of the locks.
func (l *Line) take1() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.busy || l.pools == nil {
		return false
	}
	l.busy = true
	return true
}

// usable reports whether a line that was taken can carry a request, and ends it where
// not.
func (l *Line) usable() bool {
	if l.h2 != nil || l.conn.unwatch() {
		return true
	}
	l.Close()
	return false
}

// trip1 sends req on a line that was taken, and gives that back when the answer has
// been read.
func (l *Line) trip1(req *http.Request, got1xx func(int, textproto.MIMEHeader) error) (*http.Response, error) {
	res, err := l.h1.RoundTripInterim(req, got1xx)
	if err != nil {
		l.end1() // the connection is closed, unless nothing of the request was sent
		return nil, l.explain(err)
	}
	if res.Body == http.NoBody {
		l.end1()
		return res, nil
	}
	if _, upgraded := res.Body.(io.ReadWriteCloser); upgraded {
		l.leave() // nothing comes after it
		return res, nil
	}
	res.Body = &line1Body{ReadCloser: res.Body, line: l}
	return res, nil
}

func (l *Line) open() bool {
	select {
	case <-l.conn.done:
		return false
	default:
		return true
	}
}

// end1 comes when an answer is over. Where the connection was kept, it may carry
// another request.
func (l *Line) end1() {
	if l.open() {
		l.conn.watch()
		l.freed()
	} else {
		l.h1.CloseIdle() // or its timer would keep what has ended
	}
}

// line1Body gives the line back at its end.
type line1Body struct {
	io.ReadCloser
	line *Line
	over bool
}

func (b *line1Body) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err != nil && err != io.EOF {
		err = b.line.explain(err)
	}
	if err == io.EOF {
		b.end()
	}
	return n, err
}

func (b *line1Body) Close() error {
	err := b.ReadCloser.Close() // closes the connection where there is more
	b.end()
	return err
}

func (b *line1Body) end() {
	if !b.over {
		b.over = true
		b.line.end1()
	}
}

// BeforeWait passes on what [proxy.Forward] flushes by.
func (b *line1Body) BeforeWait(f func()) bool {
	w, ok := b.ReadCloser.(interface{ BeforeWait(func()) bool })
	return ok && w.BeforeWait(f)
}
