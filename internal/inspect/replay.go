package inspect

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"golang.org/x/net/http/httpguts"
)

const (
	// replayTime is how long a replay may take; one that never ends, such as a stream of
	// events, is cut off then.
	replayTime = 60 * time.Second
	// maxEdit bounds what says how a replay differs, in bytes.
	maxEdit = 32 << 20
)

// Edit is how a replay differs from the request. What is nil is as it was.
type Edit struct {
	Method *string `json:"method,omitempty"`
	// URL is a path with its query. One with the host that the request was for is taken,
	// too; where a replay goes is not to be chosen.
	URL *string `json:"url,omitempty"`
	// Headers are all fields, Host as well, in place of the request's. A value that is
	// [Mask] stands for what the request had.
	Headers []Field `json:"headers,omitempty"`
	// Body, or Base64 for what is no text, replaces the body. A compressed body stays as
	// it was where neither is set; where one is, Content-Encoding is taken out.
	Body   *string `json:"body,omitempty"`
	Base64 *string `json:"base64,omitempty"`
}

// Replayed is the answer to a replay: the id by which it was recorded.
type Replayed struct {
	ID int64 `json:"id"`
}

func (s *Server) replay(w http.ResponseWriter, r *http.Request) {
	rec := s.find(w, r)
	if rec == nil {
		return
	}
	var edit Edit
	decoder := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxEdit))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&edit); err != nil && err != io.EOF {
		refuse(w, http.StatusBadRequest, "the edit cannot be read: "+err.Error())
		return
	}
	by, err := s.store.recorder(rec)
	if err != nil {
		refuse(w, http.StatusConflict, err.Error())
		return
	}
	again, err := rec.again(edit)
	if err != nil {
		refuse(w, http.StatusUnprocessableEntity, err.Error())
		return
	}
	// Who has asked may go: the app gets the whole request all the same.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), replayTime)
	defer cancel()
	send(w, http.StatusOK, Replayed{by.run(again.WithContext(ctx), rec.id)})
}

// run has the app answer a replay, and returns the id by which it was recorded.
func (r *Recorder) run(req *http.Request, original int64) int64 {
	rec := newRecord(req, time.Now())
	rec.original = original
	func() {
		defer func() {
			if p := recover(); p != nil && p != http.ErrAbortHandler {
				panic(p)
			}
		}()
		r.serve(nobody{make(http.Header)}, req, rec)
	}()
	return rec.id
}

// nobody is where the answer of a replay goes: it was recorded on the way.
type nobody struct{ header http.Header }

func (n nobody) Header() http.Header         { return n.header }
func (n nobody) WriteHeader(int)             {}
func (n nobody) Write(p []byte) (int, error) { return len(p), nil }

// again makes the request anew.
func (rec *record) again(edit Edit) (*http.Request, error) {
	rec.mu.Lock()
	body := rec.asked
	was := &asked{target: rec.target, public: rec.public, header: rec.header}
	rec.mu.Unlock()
	if was.target == "" {
		return nil, errors.New("the request is not kept any more: it was cleared, or given up for newer ones")
	}
	target, host := was.target, rec.host
	method := rec.method
	if edit.Method != nil {
		method = *edit.Method
	}
	if !httpguts.ValidHeaderFieldName(method) || method == http.MethodConnect {
		return nil, fmt.Errorf("%q is no method of a request", method)
	}
	if edit.URL != nil {
		var err error
		if target, err = was.newTarget(*edit.URL); err != nil {
			return nil, err
		}
	}
	u, err := url.ParseRequestURI(target)
	if err != nil || strings.ContainsAny(target, " \r\n\t") {
		return nil, fmt.Errorf("%q is no path: write a space as %%20", target)
	}
	header, err := was.newHeader(edit.Headers)
	if err != nil {
		return nil, err
	}
	if edit.Headers != nil {
		host = header.Get("Host")
	}
	if !httpguts.ValidHostHeader(host) || host == "" {
		return nil, fmt.Errorf("host %q is not valid", host)
	}
	content, err := edit.content(body)
	if err != nil {
		return nil, err
	}
	if edit.Body != nil || edit.Base64 != nil {
		header.Del("Content-Encoding")
	}
	req := &http.Request{
		Method: method, URL: u, RequestURI: target, Host: host, Header: header, RemoteAddr: rec.remote,
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Body: http.NoBody, ContentLength: int64(len(content)),
	}
	frame(req, content)
	return req, nil
}

// asked is what a replay takes from a request, which may be given up meanwhile.
type asked struct {
	target, public string
	header         []Field
}

// newTarget reads the URL of an edit.
func (a *asked) newTarget(s string) (string, error) {
	if strings.HasPrefix(s, "/") || s == a.target {
		return s, nil
	}
	if rest, ok := strings.CutPrefix(s, a.public); ok && (rest == "" || rest[0] == '/' || rest[0] == '?') {
		if !strings.HasPrefix(rest, "/") {
			rest = "/" + rest
		}
		return rest, nil
	}
	return "", fmt.Errorf("%q leads elsewhere: a replay goes to the local app, so give a path such as /hook?x=1", s)
}

// newHeader is the header of a replay without what is of one connection. nil is the
// request's own.
func (a *asked) newHeader(edited []Field) (http.Header, error) {
	if edited == nil {
		edited = a.header
	}
	h := make(http.Header, len(edited))
	used := make(map[string]int) // masked values, by name
	for _, f := range edited {
		name := http.CanonicalHeaderKey(strings.TrimSpace(f.Name))
		if f.Value == Mask {
			var ok bool
			if f.Value, ok = a.valueAt(name, used[name]); !ok {
				return nil, fmt.Errorf("the request had no %s that the mask could stand for: write the value", name)
			}
			used[name]++
		}
		if !httpguts.ValidHeaderFieldName(name) || !httpguts.ValidHeaderFieldValue(f.Value) {
			return nil, fmt.Errorf("header field %q is not valid", name) // its value may be a secret
		}
		h[name] = append(h[name], f.Value)
	}
	if h.Get("Upgrade") != "" {
		return nil, errors.New("a connection that switched protocols, such as a WebSocket, cannot be replayed")
	}
	for _, name := range []string{"Connection", "Expect", "Keep-Alive", "Te", "Trailer", "Transfer-Encoding", "Upgrade"} {
		h.Del(name)
	}
	return h, nil
}

// valueAt is the i-th value of that name.
func (a *asked) valueAt(name string, i int) (string, bool) {
	for _, f := range sorted(append([]Field(nil), a.header...)) {
		if f.Name != name {
			continue
		}
		if i == 0 {
			return f.Value, true
		}
		i--
	}
	return "", false
}

// content is the body of a replay.
func (e Edit) content(was body) ([]byte, error) {
	switch {
	case e.Base64 != nil:
		b, err := base64.StdEncoding.DecodeString(*e.Base64)
		if err != nil {
			return nil, errors.New("the body is not base64")
		}
		return b, nil
	case e.Body != nil:
		return []byte(*e.Body), nil
	case was.more:
		return nil, fmt.Errorf("only %d of the body's %d bytes were kept: start the tunnel with a larger --inspect-body, or give a body", len(was.kept), was.size)
	}
	return bytes.Clone(was.kept), nil
}

// frame gives req its body.
func frame(req *http.Request, content []byte) {
	_, had := req.Header["Content-Length"]
	delete(req.Header, "Content-Length")
	delete(req.Header, "Host")
	switch {
	case len(content) > 0:
		req.Header["Content-Length"] = []string{strconv.Itoa(len(content))}
		req.Body = io.NopCloser(&replayBody{content})
	case had:
		req.Header["Content-Length"] = []string{"0"}
	}
}

// replayBody ends with its last byte, as a body of known length does on the tunnel: an
// answer that comes at once is not taken for one that is early.
type replayBody struct{ left []byte }

func (b *replayBody) Read(p []byte) (int, error) {
	n := copy(p, b.left)
	b.left = b.left[n:]
	if len(b.left) == 0 {
		return n, io.EOF
	}
	return n, nil
}
