package proxy

import (
	"bytes"
	"context"

	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// h2cHop is Forward over http.Transport to an app of HTTP/2 without TLS.
func h2cHop(t testing.TB, app http.HandlerFunc) http.Handler {
	addr := listen(t, app)
	tr := &http.Transport{
		DialContext:        func(ctx context.Context, _, _ string) (net.Conn, error) { return dialer(addr)(ctx) },
		DisableCompression: true, Protocols: new(http.Protocols), ExpectContinueTimeout: patience,
	}
	tr.Protocols.SetUnencryptedHTTP2(true)
	t.Cleanup(tr.CloseIdleConnections)
	return hop(tr, Options{Request: func(out *http.Request) {
		out.URL = &url.URL{Scheme: "http", Host: out.Host, Opaque: "//" + out.Host + out.RequestURI}
	}}, nil)
}

// h2cWay leads to it over streams.
func h2cWay(t testing.TB, app http.HandlerFunc, serve serveFunc) string {
	server, client := sessions(t)
	serve(t, streams{client}, h2cHop(t, app))
	edge := &Transport{Dial: func(ctx context.Context) (net.Conn, error) { return server.Open(ctx) }}
	t.Cleanup(edge.CloseIdle)
	return listen(t, hop(edge, Options{}, nil))
}

func bothH2C(t *testing.T, test func(t *testing.T, way func(testing.TB, http.HandlerFunc) string)) {
	t.Run("one hop", func(t *testing.T) {
		test(t, func(t testing.TB, app http.HandlerFunc) string { return listen(t, h2cHop(t, app)) })
	})
	for name, serve := range servers {
		t.Run(name, func(t *testing.T) {
			test(t, func(t testing.TB, app http.HandlerFunc) string { return h2cWay(t, app, serve) })
		})
	}
}

// frames is a visitor of HTTP/2 that sees the frames.
type frames struct {
	*http2.Framer
	t    testing.TB
	next uint32
	buf  bytes.Buffer
	enc  *hpack.Encoder
}

func dialFrames(t testing.TB, addr string) *frames {
	t.Helper()
	v := visit(t, addr, http2.ClientPreface)
	f := &frames{Framer: http2.NewFramer(v, v.r), t: t, next: 1}
	f.enc = hpack.NewEncoder(&f.buf)
	f.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	if err := f.WriteSettings(); err != nil {
		t.Fatal(err)
	}
	return f
}

// post begins a request of gRPC's kind and returns its stream.
func (f *frames) post(path string) uint32 {
	f.buf.Reset()
	for _, h := range [][2]string{
		{":method", "POST"}, {":scheme", "http"}, {":authority", "a.example"}, {":path", path},
		{"content-type", "application/grpc"}, {"te", "trailers"},
	} {
		f.enc.WriteField(hpack.HeaderField{Name: h[0], Value: h[1]})
	}
	id := f.next
	f.next += 2
	err := f.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: f.buf.Bytes(), EndHeaders: true})
	if err != nil {
		f.t.Fatal(err)
	}
	return id
}

// answer tells the next frames of a stream: "H" with a header's status or a
// trailer's grpc-status, "D" with data, each with "." where the stream ends.
func (f *frames) answer(id uint32, n int) string {
	f.t.Helper()
	var got []string
	for len(got) < n {
		frame, err := f.ReadFrame()
		if err != nil {
			f.t.Fatalf("after %q: %v", got, err)
		}
		switch frame := frame.(type) {
		case *http2.SettingsFrame:
			if !frame.IsAck() {
				f.WriteSettingsAck()
			}
		case *http2.PingFrame:
			if !frame.IsAck() {
				f.WritePing(true, frame.Data)
			}
		case *http2.MetaHeadersFrame:
			s := "H"
			for _, h := range frame.Fields {
				if h.Name == ":status" || h.Name == "grpc-status" {
					s += h.Value
				}
			}
			got = append(got, ended(s, frame.StreamEnded()))
		case *http2.DataFrame:
			got = append(got, ended("D"+string(frame.Data()), frame.StreamEnded()))
		case *http2.RSTStreamFrame:
			if frame.StreamID == id {
				got = append(got, "R")
			}
		}
	}
	return strings.Join(got, " ")
}

func ended(s string, end bool) string {
	if end {
		return s + "."
	}
	return s
}

// grpcApp answers in each shape that gRPC has; it tells read how a cancelled
// request went.
func grpcApp(read chan<- string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		rc := http.NewResponseController(w)
		w.Header().Set("Content-Type", "application/grpc")
		one := make([]byte, 1)
		switch r.URL.Path {
		case "/trailers-only":
			w.Header().Set("Grpc-Status", "5")
		case "/unary":
			io.Copy(io.Discard, r.Body)
			w.Write([]byte("x"))
			w.Header().Set(http.TrailerPrefix+"Grpc-Status", "0")
		case "/header-first": // the client may wait for it before it sends
			rc.Flush()
			io.ReadFull(r.Body, one)
			w.Write(one)
			w.Header().Set(http.TrailerPrefix+"Grpc-Status", "0")
		case "/counted": // as unary ones of net/http are
			w.Header().Set("Content-Length", "1")
			w.Write([]byte("x"))
			w.Header().Set(http.TrailerPrefix+"Grpc-Status", "3")
		case "/counted-none":
			w.Header().Set("Content-Length", "0")
			rc.Flush()
			w.Header().Set(http.TrailerPrefix+"Grpc-Status", "4")
		case "/no-message":
			w.Header().Set("Trailer", "Grpc-Status")
			rc.Flush()
			w.Header().Set("Grpc-Status", "7")
		case "/both-ways":
			for {
				if _, err := io.ReadFull(r.Body, one); err != nil {
					break
				}
				w.Write(one)
				rc.Flush()
			}
			w.Header().Set(http.TrailerPrefix+"Grpc-Status", "0")
		case "/cancelled":
			read <- "begun"
			_, err := io.ReadAll(r.Body)
			<-r.Context().Done()
			read <- ended("read", err == nil)
		}
	}
}

// TestGRPC has the shapes that an answer of gRPC can have.
func TestGRPC(t *testing.T) { bothH2C(t, grpc) }

func grpc(t *testing.T, way func(testing.TB, http.HandlerFunc) string) {
	read := make(chan string, 1)
	f := dialFrames(t, way(t, grpcApp(read)))
	say := func(id uint32, data string, end bool) {
		t.Helper()
		if err := f.WriteData(id, end, []byte(data)); err != nil {
			t.Fatal(err)
		}
	}
	expect := func(what string, id uint32, want string) {
		t.Helper()
		if got := f.answer(id, len(strings.Fields(want))); got != want {
			t.Fatalf("%s: got %q, want %q", what, got, want)
		}
	}
	for range 100 {
		id := f.post("/trailers-only")
		say(id, "q", true)
		expect("trailers only", id, "H2005.")
	}
	id := f.post("/unary")
	say(id, "q", true)
	expect("unary", id, "H200 Dx H0.")

	id = f.post("/counted")
	say(id, "q", true)
	expect("of known length", id, "H200 Dx H3.")

	id = f.post("/counted-none")
	say(id, "q", true)
	expect("of length 0", id, "H200 H4.")

	id = f.post("/header-first")
	expect("header first", id, "H200")
	say(id, "q", true)
	expect("then", id, "Dq H0.")

	id = f.post("/no-message")
	expect("ended early, no message", id, "H200 H7. R") // R: no error, no more is wanted

	id = f.post("/both-ways")
	for _, s := range []string{"a", "b", "c"} {
		say(id, s, false)
		want := "D" + s
		if s == "a" {
			want = "H200 " + want
		}
		expect("both ways", id, want)
	}
	say(id, "", true)
	expect("the end", id, "H0.")

	id = f.post("/cancelled")
	say(id, "q", false)
	within(t, "request", read)
	if err := f.WriteRSTStream(id, http2.ErrCodeCancel); err != nil {
		t.Fatal(err)
	}
	if got := within(t, "cancel", read); got != "read" {
		t.Error("the app read a clean end")
	}
}

// The request line, the fields and the body arrive over HTTP/2 as well.
func TestH2CFidelity(t *testing.T) { bothH2C(t, h2cFidelity) }

func h2cFidelity(t *testing.T, way func(testing.TB, http.HandlerFunc) string) {
	const target = `/a%2Fb//c|d^e"f/../ü;x?y;z=|&q`
	addr := way(t, func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if r.Proto != "HTTP/2.0" || r.RequestURI != target || string(body) != "abc" || err != nil {
			t.Errorf("%s %q %q %v", r.Proto, r.RequestURI, body, err)
		}
		if got := strings.Join(fields(r.Header), "|"); got != "Content-Length: 3|X-A: 1|X-A: 2" {
			t.Errorf("app saw %q", got)
		}
		w.Header()["Date"] = nil
		w.WriteHeader(http.StatusEarlyHints)
		w.Header().Set("Content-Type", "a/b")
		w.Header().Set("Content-Length", "2")
		io.WriteString(w, "hi")
	})
	v := visit(t, addr, "POST "+target+" HTTP/1.1\r\nHost: a.example\r\nX-A: 1\r\nX-A: 2\r\nContent-Length: 3\r\n\r\nabc")
	v.next("HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Type: a/b\r\n\r\nhi")
}

// An app of HTTP/2 that resets a stream has not ended its answer (R1), and one
// that never reads is told where the upload was cut (R2).
func TestH2CCut(t *testing.T) { bothH2C(t, h2cCut) }

func h2cCut(t *testing.T, way func(testing.TB, http.HandlerFunc) string) {
	for _, length := range []int{0, 1000} {
		addr := way(t, func(w http.ResponseWriter, r *http.Request) {
			if length > 0 {
				w.Header().Set("Content-Length", strconv.Itoa(length))
			}
			io.WriteString(w, "some")
			http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler)
		})
		for _, version := range []string{"1.0", "1.1"} {
			v := visit(t, addr, "GET / HTTP/"+version+"\r\nHost: a\r\n\r\n")
			res, err := http.ReadResponse(v.r, nil)
			if err != nil {
				continue // a reset took the header with it
			}
			if m := read(res); m.line == "200" && !m.cut() {
				t.Errorf("length %d: %v", length, m)
			}
		}
	}
	read := make(chan error, 1)
	begun := make(chan bool, 1)
	addr := way(t, func(w http.ResponseWriter, r *http.Request) {
		begun <- true
		_, err := io.ReadAll(r.Body)
		read <- err
	})
	for _, framing := range []string{"Content-Length: 9\r\n\r\nx", "Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n"} {
		v := visit(t, addr, "POST / HTTP/1.1\r\nHost: a\r\n"+framing)
		within(t, "request", begun)
		v.Close()
		if err := within(t, "end of the request", read); err == nil {
			t.Error("the app read a clean end")
		}
	}
}

// 100 (Continue) comes from the app of HTTP/2, too.
func TestH2CExpect(t *testing.T) { bothH2C(t, h2cExpect) }

func h2cExpect(t *testing.T, way func(testing.TB, http.HandlerFunc) string) {
	accept := make(chan bool)
	addr := way(t, func(w http.ResponseWriter, r *http.Request) {
		if !<-accept {
			w.WriteHeader(http.StatusExpectationFailed)
			return
		}
		io.Copy(w, r.Body)
	})
	const request = "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n"
	v := visit(t, addr, request)
	silent(t, v, v.r)
	accept <- true
	v.next("HTTP/1.1 100 Continue\r\n\r\n")
	v.send("abc")
	if m := v.message("POST"); m.body != "abc" {
		t.Error(m)
	}
	v = visit(t, addr, request)
	accept <- false
	if m := v.message("POST"); m.line != "417" {
		t.Error(m)
	}
}
