package rig

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/coder/websocket"
	"google.golang.org/grpc"
)

// The header fields that go with each body, of requests and of answers.
const (
	HeaderID   = "Rig-Id"
	HeaderSize = "Rig-Size"   // bytes
	HeaderSum  = "Rig-Sha256" // hexadecimal
	trailerSum = "Rig-End"    // the sum again, behind a chunked body
)

// An App is the local app of a trial: it answers an [Ask] of each kind, and writes to its journal which
// ids it ran. It is an http.Handler; gRPC has a listener of its own.
type App struct {
	// Journal is required.
	Journal *Journal

	hanging atomic.Int64
}

// Busy is how many requests the app is at.
func (a *App) Busy() int { return int(a.hanging.Load()) }

// Run serves HTTP at web and gRPC (HTTP/2 without TLS) at calls, which may be nil, until ctx ends, and
// then breaks off what is under way.
func (a *App) Run(ctx context.Context, web, calls net.Listener) error {
	server := &http.Server{Handler: a}
	ended := make(chan error, 2)
	go func() { ended <- server.Serve(web) }()
	var g *grpc.Server
	if calls != nil {
		g = a.grpcServer()
		go func() { ended <- g.Serve(calls) }()
	}
	var err error
	select {
	case err = <-ended:
	case <-ctx.Done():
	}
	server.Close()
	if g != nil {
		g.Stop()
	}
	return err
}

// ServeHTTP answers the ask in r's URL, and anything else with 404.
func (a *App) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	ask, err := parseAsk(r.URL)
	if err != nil {
		http.Error(w, "rig: "+err.Error(), http.StatusBadRequest)
		return
	}
	a.hanging.Add(1)
	defer a.hanging.Add(-1)
	a.Journal.note(ask.ID, "began", r.Method)
	h := w.Header()
	h.Set(HeaderID, ask.ID)
	h.Set("Cache-Control", "no-store")
	switch ask.Kind {
	case Length, Chunked:
		a.body(w, ask)
	case Close, HTTP10:
		a.untilClose(w, ask)
	case SSE:
		a.events(w, ask)
	case Post:
		a.upload(w, r, ask)
	case WebSocket:
		a.echo(w, r, ask)
	default:
		http.NotFound(w, r)
	}
}

// body answers with a length or chunks.
func (a *App) body(w http.ResponseWriter, ask Ask) {
	h, sum := w.Header(), Sum(ask.ID, ask.Size)
	announce(h, ask.Size, sum)
	if ask.Kind == Length {
		h.Set("Content-Length", strconv.FormatInt(ask.Size, 10))
	} else {
		h.Set("Trailer", trailerSum)
	}
	flush := http.NewResponseController(w).Flush
	if ask.Kind == Chunked {
		_ = flush() // or a short one would get a length
	}
	ask.write(w, flush)
	if ask.Kind == Chunked {
		h.Set(trailerSum, sum)
	}
}

func announce(h http.Header, size int64, sum string) {
	h.Set("Content-Type", "application/octet-stream")
	h.Set(HeaderSize, strconv.FormatInt(size, 10))
	h.Set(HeaderSum, sum)
}

// write writes the body in its pieces. It panics where the app is to break off, or the reader has.
func (a Ask) write(w io.Writer, flush func() error) {
	body, pieces := Body(a.ID, a.Size), int64(a.pieces())
	var sent int64
	for i := range pieces {
		if i > 0 {
			time.Sleep(a.Pause)
		}
		n := a.Size*(i+1)/pieces - sent
		abort := a.Abort > 0 && sent+n >= a.Abort
		if abort {
			n = a.Abort - sent
		}
		_, err := io.CopyN(w, body, n)
		sent += n
		if err == nil && (pieces > 1 || abort) {
			err = flush()
		}
		if err != nil || abort {
			panic(http.ErrAbortHandler)
		}
	}
}

// untilClose answers without a length, and closes. While the answer is under way the connection would
// end with a reset: without that, an app that is killed would leave an answer that looks complete.
func (a *App) untilClose(w http.ResponseWriter, ask Ask) {
	conn, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		http.Error(w, "rig: "+err.Error(), http.StatusHTTPVersionNotSupported)
		return
	}
	defer conn.Close()
	tcp, _ := conn.(*net.TCPConn)
	linger := func(seconds int) {
		if tcp != nil {
			_ = tcp.SetLinger(seconds)
		}
	}
	linger(0)
	version := "HTTP/1.1 200 OK\r\nConnection: close"
	if ask.Kind == HTTP10 {
		version = "HTTP/1.0 200 OK"
	}
	fmt.Fprintf(rw, "%s\r\nContent-Type: application/octet-stream\r\n%s: %s\r\n%s: %d\r\n%s: %s\r\n\r\n",
		version, HeaderID, ask.ID, HeaderSize, ask.Size, HeaderSum, Sum(ask.ID, ask.Size))
	ask.write(rw, rw.Flush)
	if rw.Flush() == nil {
		linger(-1)
	}
}

// events sends the events, and a last one that tells how many there were.
func (a *App) events(w http.ResponseWriter, ask Ask) {
	w.Header().Set("Content-Type", "text/event-stream")
	flush := http.NewResponseController(w).Flush
	_ = flush()
	for i := range ask.pieces() {
		if i > 0 {
			time.Sleep(ask.Pause)
		}
		fmt.Fprintf(w, "id: %d\ndata: %s\n\n", i, hex.EncodeToString(ask.message(i)))
		if flush() != nil || ask.Abort > 0 && int64(i) >= ask.Abort {
			panic(http.ErrAbortHandler)
		}
	}
	fmt.Fprintf(w, "event: end\ndata: %d\n\n", ask.pieces())
}

// upload reads the body and notes how it ended: what the app believes is what counts.
func (a *App) upload(w http.ResponseWriter, r *http.Request, ask Ask) {
	sum := sha256.New()
	n, err := io.Copy(sum, r.Body)
	if err != nil {
		a.Journal.note(ask.ID, "body", bodyBroken)
		panic(http.ErrAbortHandler)
	}
	if strconv.FormatInt(n, 10) != r.Header.Get(HeaderSize) || hex.EncodeToString(sum.Sum(nil)) != r.Header.Get(HeaderSum) {
		a.Journal.note(ask.ID, "body", bodyWrong)
		http.Error(w, "rig: the body is not what was announced", http.StatusUnprocessableEntity)
		return
	}
	a.Journal.note(ask.ID, "body", bodyWhole)
	time.Sleep(ask.Think)
	answer := Ask{ID: ask.ID, Kind: Length, Size: answerSize, Abort: ask.Abort}
	a.body(w, answer)
}

// answerSize is how many bytes answer a Post.
const answerSize = 256

// echo sends each message back until the visitor closes.
func (a *App) echo(w http.ResponseWriter, r *http.Request, ask Ask) {
	c, err := websocket.Accept(w, r, &websocket.AcceptOptions{InsecureSkipVerify: true})
	if err != nil {
		return // it has answered
	}
	defer c.CloseNow()
	c.SetReadLimit(ask.Size + 1)
	for i := 0; ; i++ {
		kind, message, err := c.Read(context.WithoutCancel(r.Context()))
		if err != nil {
			var closed websocket.CloseError
			if errors.As(err, &closed) {
				a.Journal.note(ask.ID, "body", bodyWhole)
			} else {
				a.Journal.note(ask.ID, "body", bodyBroken)
			}
			return
		}
		if ask.Abort > 0 && int64(i) >= ask.Abort {
			return
		}
		if err := c.Write(context.WithoutCancel(r.Context()), kind, message); err != nil {
			return
		}
	}
}
