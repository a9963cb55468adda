package rig

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"math/rand/v2"
	"net/url"
	"strconv"
	"time"
)

// A Kind is a way to ask the app.
type Kind string

// The kinds. The first five are answered by a body that is framed as the name says.
const (
	Length    Kind = "length"    // GET, Content-Length
	Chunked   Kind = "chunked"   // GET, chunked, with the checksum again as a trailer
	Close     Kind = "close"     // GET, HTTP/1.1 that ends with the connection
	HTTP10    Kind = "http10"    // GET, answered as HTTP/1.0, without a length
	SSE       Kind = "sse"       // GET, Pieces numbered events and a last one
	Post      Kind = "post"      // POST of Size bytes, answered when they were read and compared
	WebSocket Kind = "websocket" // Pieces messages of Size bytes, each is echoed, and a closing handshake
	Unary     Kind = "unary"     // gRPC, Size bytes each way
	Stream    Kind = "stream"    // gRPC, Pieces messages of Size bytes come
	Raw       Kind = "raw"       // TCP without HTTP: Size bytes, the end of one side, and then Size bytes back and the end
	Datagrams Kind = "datagrams" // UDP: Pieces messages of about Size bytes, each is echoed; what is lost is sent again
)

// An Ask is one request to come. Its zero Kind is not allowed; the other zero values are.
type Ask struct {
	ID     string // its own, and nobody else's; letters, digits, '-' and '.'
	Kind   Kind
	Size   int64         // bytes of the body, or of each message
	Pieces int           // in which the body is written and flushed, or messages; 0 is one
	Pause  time.Duration // between two pieces
	Think  time.Duration // of the app, between a Post's body and its answer
	// Abort, if positive, is after how many bytes of its answer the app breaks the connection off.
	Abort int64
	// Unsized sends a Post's body chunked, not with a Content-Length.
	Unsized bool
}

func (a Ask) pieces() int { return max(a.Pieces, 1) }

// once reports whether the app may run a at most once.
func (a Ask) once() bool {
	return a.Kind == Post || a.Kind == Unary || a.Kind == Stream || a.Kind == Raw
}

// Path is the request's target: the app reads from it what it is to do.
func (a Ask) Path() string {
	q := url.Values{"id": {a.ID}, "size": {strconv.FormatInt(a.Size, 10)}, "pieces": {strconv.Itoa(a.Pieces)}, "pause": {a.Pause.String()}}
	if a.Think > 0 {
		q.Set("think", a.Think.String())
	}
	if a.Abort > 0 {
		q.Set("abort", strconv.FormatInt(a.Abort, 10))
	}
	return "/" + string(a.Kind) + "?" + q.Encode()
}

// parseAsk is the reverse of Path.
func parseAsk(u *url.URL) (Ask, error) {
	q := u.Query()
	a := Ask{ID: q.Get("id"), Kind: Kind(u.Path[min(1, len(u.Path)):])}
	for name, to := range map[string]*int64{"size": &a.Size, "abort": &a.Abort} {
		if v := q.Get(name); v != "" {
			var err error
			if *to, err = strconv.ParseInt(v, 10, 64); err != nil || *to < 0 {
				return a, fmt.Errorf("%s %q", name, v)
			}
		}
	}
	a.Pieces, _ = strconv.Atoi(q.Get("pieces"))
	a.Pause, _ = time.ParseDuration(q.Get("pause"))
	a.Think, _ = time.ParseDuration(q.Get("think"))
	if a.ID == "" {
		return a, fmt.Errorf("no id")
	}
	return a, nil
}

// mark begins each body, so that a body tells whose it is.
func mark(id string) string { return "rig " + id + "\n" }

// Body reads the size bytes that belong to id: the same ones each time, no others' ones.
func Body(id string, size int64) io.Reader {
	return io.LimitReader(io.MultiReader(bytes.NewBufferString(mark(id)), rand.NewChaCha8(sha256.Sum256([]byte(id)))), size)
}

// bodyOf is the whole of Body.
func bodyOf(id string, size int64) []byte {
	b, _ := io.ReadAll(Body(id, size)) // it cannot fail
	return b
}

// Sum is the SHA-256 of Body in hexadecimal.
func Sum(id string, size int64) string {
	h := sha256.New()
	_, _ = io.Copy(h, Body(id, size)) // neither can fail
	return hex.EncodeToString(h.Sum(nil))
}

// message is the body of a's i-th message or event, counted from 0.
func (a Ask) message(i int) []byte { return bodyOf(a.ID+"."+strconv.Itoa(i), a.Size) }
