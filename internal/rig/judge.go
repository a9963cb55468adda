package rig

import (
	"bufio"
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/coder/websocket"
)

func readResponse(c net.Conn, r *http.Request) (*http.Response, error) {
	return http.ReadResponse(bufio.NewReader(c), r)
}

// judge reads the answer to its end.
func (o *Result) judge(res *http.Response, alive func()) error {
	o.Status, o.Code = res.StatusCode, res.Header.Get("Tunnel-Error")
	body := &watched{from: res.Body, alive: alive}
	if res.StatusCode == http.StatusUnprocessableEntity && res.Header.Get(HeaderID) != "" {
		return o.end(Truncated, errors.New("the app got another body than was sent"))
	}
	if res.StatusCode >= 400 {
		text, err := io.ReadAll(io.LimitReader(body, 4<<10))
		if err != nil {
			return err
		}
		line, _, _ := bytes.Cut(text, []byte("\n"))
		return o.end(Rejected, fmt.Errorf("%.160q", line))
	}
	if id := res.Header.Get(HeaderID); id != o.Ask.ID || res.StatusCode != http.StatusOK {
		return o.end(CrossTalk, fmt.Errorf("status %d with the id %q", res.StatusCode, id))
	}
	if o.Ask.Kind == SSE {
		return o.events(body)
	}
	return o.bytes(res, body)
}

// bytes compares the body with what it must be.
func (o *Result) bytes(res *http.Response, body io.Reader) error {
	size := o.Ask.Size
	if o.Ask.Kind == Post {
		size = answerSize
	}
	same, first, err := o.compare(body, size)
	if err != nil {
		return err
	}
	switch {
	case !same || o.Got != size:
		return o.wrong(first, fmt.Errorf("a clean end after %d bytes of %d, the same so far: %v", o.Got, size, same))
	case res.Header.Get(HeaderSum) != Sum(o.Ask.ID, size):
		return o.end(CrossTalk, errors.New("the header has another sum"))
	case o.Ask.Kind == Chunked && (res.ProtoMajor >= 2 || len(res.TransferEncoding) > 0) && res.Trailer.Get(trailerSum) != res.Header.Get(HeaderSum):
		return o.end(Truncated, fmt.Errorf("the trailer has the sum %q", res.Trailer.Get(trailerSum)))
	}
	return o.end(Full, nil)
}

// compare reads body to its end and holds it against what it must be. first is how it
// begins. The error is of a body that did not end cleanly.
func (o *Result) compare(body io.Reader, size int64) (same bool, first []byte, err error) {
	want := Body(o.Ask.ID, size)
	buf, expected := make([]byte, 32<<10), make([]byte, 32<<10)
	same = true
	for {
		n, err := body.Read(buf)
		first = append(first, buf[:min(n, max(200-len(first), 0))]...)
		m, _ := io.ReadFull(want, expected[:n])
		same = same && m == n && bytes.Equal(buf[:n], expected[:m])
		o.Got += int64(n)
		if err == io.EOF {
			return same, first, nil
		}
		if err != nil {
			if foreign(first, o.Ask.ID) {
				return same, first, o.end(CrossTalk, err)
			}
			return same, first, err
		}
	}
}

// events reads server-sent events: each once, in order, and the last one.
func (o *Result) events(body io.Reader) error {
	next, ended := 0, false
	lines := bufio.NewReader(body)
	for {
		event, err := readEvent(lines)
		if err == io.EOF && event == "" {
			break
		}
		if err != nil && err != io.EOF {
			return err
		}
		o.Got += int64(len(event))
		switch {
		case event == fmt.Sprintf("event: end\ndata: %d\n", o.Ask.pieces()) && next == o.Ask.pieces() && !ended:
			ended = true
		case event == fmt.Sprintf("id: %d\ndata: %s\n", next, hex.EncodeToString(o.Ask.message(next))):
			next++
		default:
			return o.end(Truncated, fmt.Errorf("after %d events comes %q", next, event[:min(len(event), 120)]))
		}
	}
	if !ended {
		return o.end(Truncated, fmt.Errorf("a clean end after %d events of %d", next, o.Ask.pieces()))
	}
	return o.end(Full, nil)
}

// readEvent reads lines up to an empty one, or the end.
func readEvent(r *bufio.Reader) (event string, err error) {
	for {
		line, err := r.ReadString('\n')
		if line == "\n" {
			return event, nil
		}
		event += line
		if err != nil {
			return event, err
		}
	}
}

// talk sends the messages over a WebSocket, and waits for each to come back before the next.
func (v *Visitor) talk(ctx context.Context, o *Result, alive func()) error {
	dialer := &http.Transport{DialContext: v.dial, TLSClientConfig: v.TLS.Clone(), DisableKeepAlives: true}
	c, res, err := websocket.Dial(ctx, v.scheme()+"://"+v.Host+o.Ask.Path(), &websocket.DialOptions{HTTPClient: &http.Client{Transport: dialer}})
	if err != nil {
		if res != nil && res.StatusCode >= 400 {
			o.Status, o.Code = res.StatusCode, res.Header.Get("Tunnel-Error")
			return o.end(Rejected, err)
		}
		return err
	}
	defer c.CloseNow()
	c.SetReadLimit(o.Ask.Size + 1)
	o.Status = res.StatusCode
	if id := res.Header.Get(HeaderID); id != o.Ask.ID {
		return o.end(CrossTalk, fmt.Errorf("upgraded with the id %q", id))
	}
	for i := range o.Ask.pieces() {
		if i > 0 {
			time.Sleep(o.Ask.Pause)
		}
		alive()
		sent := o.Ask.message(i)
		if err := c.Write(ctx, websocket.MessageBinary, sent); err != nil {
			return err
		}
		_, got, err := c.Read(ctx)
		var closed websocket.CloseError
		if errors.As(err, &closed) && closed.Code == websocket.StatusNormalClosure {
			return o.end(Truncated, fmt.Errorf("a normal close after %d messages of %d", i, o.Ask.pieces()))
		}
		if err != nil {
			return err
		}
		o.Got += int64(len(got))
		if !bytes.Equal(got, sent) {
			return o.wrong(got, fmt.Errorf("message %d came back otherwise", i))
		}
	}
	alive()
	if err := c.Close(websocket.StatusNormalClosure, ""); err != nil {
		return err
	}
	return o.end(Full, nil)
}

// A watched reader tells when bytes come.
type watched struct {
	from  io.Reader
	alive func()
}

func (w *watched) Read(b []byte) (int, error) {
	n, err := w.from.Read(b)
	if n > 0 {
		w.alive()
	}
	return n, err
}

// Reconcile holds what visitors saw against what the app ran. It changes the verdicts of outcomes where
// only both sides together show what happened, and returns those that are not allowed, with one for
// each id that the app ran and nobody asked.
func Reconcile(outcomes []Result, ran map[string]*Ran) (forbidden []Result) {
	asked := make(map[string]bool, len(outcomes))
	for i := range outcomes {
		o := &outcomes[i]
		asked[o.Ask.ID] = true
		o.reconcile(ran[o.Ask.ID])
		if !o.Verdict.Allowed() {
			forbidden = append(forbidden, *o)
		}
	}
	for _, id := range slices.Sorted(maps.Keys(ran)) {
		if !asked[id] {
			forbidden = append(forbidden, Result{Ask: Ask{ID: id}, Verdict: CrossTalk, Err: errors.New("the app ran it, and nobody asked")})
		}
	}
	return forbidden
}

func (o *Result) reconcile(ran *Ran) {
	if !o.Verdict.Allowed() || o.Ask.Kind == Datagrams { // of which the app keeps no journal
		return
	}
	if ran == nil {
		if o.Verdict == Full {
			o.Err = o.end(Lost, errors.New("the app never ran it"))
		}
		return
	}
	switch {
	case o.Ask.once() && ran.Begun > 1:
		o.Err = o.end(Duplicated, errors.New("the app ran it "+strconv.Itoa(ran.Begun)+" times"))
	// How often another ran says nothing: net/http's client, the visitor, repeats it itself.
	case ran.Bodies[bodyWrong] > 0:
		o.Err = o.end(Truncated, errors.New("the app took a body for complete that was not"))
	case o.Verdict == Full && (o.Ask.Kind == Post || o.Ask.Kind == Unary || o.Ask.Kind == Raw) && ran.Bodies[bodyWhole] == 0:
		o.Err = o.end(Lost, errors.New("the app did not get its body"))
	case o.Verdict == Full && ran.Begun == 0:
		o.Err = o.end(Lost, errors.New("the app never ran it"))
	}
}
