package proxy

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
)

// step is what the app sends, and what of it the visitor must have before the app
// sends more.
type step struct{ send, want string }

// TestEachWrite has an app that is silent until what it wrote has arrived (R27).
func TestEachWrite(t *testing.T) {
	const chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
	var single []step // every byte on its own
	single = append(single, step{chunked, ""})
	for _, c := range "5;x=y\r\nhello\r\n1\r\n!\r\n" {
		want := ""
		if strings.ContainsRune("helo!", c) {
			want = string(c)
		}
		single = append(single, step{string(c), want})
	}
	tests := map[string][]step{
		"length":         {{"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n", ""}, {"a", "a"}, {"bc", "bc"}, {"d", "d"}, {"ef", "ef"}},
		"head and body":  {{"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\na", "a"}, {"bcd", "bcd"}},
		"chunks":         {{chunked, ""}, {"1\r\na\r\n", "a"}, {"2\r\nbc\r\n1\r\nd\r\n", "bcd"}, {"0\r\n\r\n", ""}},
		"to the end":     {{"HTTP/1.1 200 OK\r\n\r\n", ""}, {"a", "a"}, {"bc", "bc"}},
		"every byte":     append(single, step{"0\r\n\r\n", ""}),
		"odd cuts":       {{chunked + "5\r\nhello\r", "hello"}, {"\n5\r\nwor", "wor"}, {"ld\r\n2", "ld"}, {"\r\n", ""}, {"ab\r\n0\r", "ab"}, {"\n\r\n", ""}},
		"size, then end": {{chunked + "2\r\nab\r\n2\r\n", "ab"}, {"cd\r\n0\r\nX: ", "cd"}, {"1\r\n\r\n", ""}},
		"event stream":   {{"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n", ""}, {"data: 1\n\n", "data: 1\n\n"}, {"data: 2\n\n", "data: 2\n\n"}},
	}
	both(t, func(t *testing.T, way func(testing.TB, string) *path) {
		for name, steps := range tests {
			for _, version := range []string{"1.0", "1.1", "2"} {
				t.Run(name+" "+version, func(t *testing.T) { eachWrite(t, way, steps, version) })
			}
		}
	})
}

func eachWrite(t *testing.T, way func(testing.TB, string) *path, steps []step, version string) {
	arrived := make(chan bool)
	defer close(arrived)
	app := newApp(t, func(c *appConn) {
		if _, ok := c.request(); !ok {
			return
		}
		for _, s := range steps {
			c.send(s.send)
			if _, ok := <-arrived; !ok {
				return
			}
		}
	})
	addr := way(t, app.addr()).addr
	var body io.Reader
	if version == "2" {
		res, err := clientOf(t, 2).Get("http://" + addr)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		body = res.Body
	} else {
		v := visit(t, addr, "GET / HTTP/"+version+"\r\nHost: a\r\n\r\n")
		body = v.head("GET").Body // it is there before the app says more
	}
	for _, s := range steps {
		got := make([]byte, len(s.want))
		if _, err := io.ReadFull(body, got); err != nil || string(got) != s.want {
			t.Fatalf("after %q got %q, %v", s.send, got, err)
		}
		arrived <- true
	}
	if rest, err := io.ReadAll(body); len(rest) > 0 || err != nil {
		t.Errorf("at the end %q, %v", rest, err)
	}
}

// transport is a RoundTripper of its own kind.
type transport func(*http.Request) (*http.Response, error)

func (f transport) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// Every write arrives as well where the body can't tell when it waits, on its own
// or through what wraps it.
func TestEachWriteOfAnyBody(t *testing.T) {
	for name, wrap := range map[string]func(io.ReadCloser) io.ReadCloser{
		"plain":   func(r io.ReadCloser) io.ReadCloser { return r },
		"wrapped": func(r io.ReadCloser) io.ReadCloser { return waiter{r} },
	} {
		t.Run(name, func(t *testing.T) {
			pr, pw := io.Pipe()
			addr := listen(t, hop(transport(func(*http.Request) (*http.Response, error) {
				return &http.Response{StatusCode: 200, Header: http.Header{}, ContentLength: -1, Body: wrap(pr)}, nil
			}), Options{}, nil))
			v := visit(t, addr, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
			body := v.head("GET").Body
			for _, want := range []string{"a", "bc"} {
				io.WriteString(pw, want)
				got := make([]byte, len(want))
				if _, err := io.ReadFull(body, got); err != nil || string(got) != want {
					t.Fatalf("got %q, %v, want %q", got, err, want)
				}
			}
			pw.Close()
			if _, err := io.ReadAll(body); err != nil {
				t.Error(err)
			}
		})
	}
}

// waiter is a body that wraps one which can't tell when it waits.
type waiter struct{ io.ReadCloser }

func (w waiter) BeforeWait(func()) bool { return false }

// A status that net/http would panic on is none.
func TestStatusOutOfRange(t *testing.T) {
	for _, status := range []int{0, 42, 199, 1000} {
		addr := listen(t, hop(transport(func(*http.Request) (*http.Response, error) {
			return &http.Response{StatusCode: status, Header: http.Header{}, Body: http.NoBody}, nil
		}), Options{}, nil))
		if m := visit(t, addr, "GET / HTTP/1.1\r\nHost: a\r\n\r\n").message("GET"); m.line != "502" {
			t.Errorf("%d: %v", status, m)
		}
	}
}

// Each chunk of a request arrives while the visitor is silent.
func TestEachChunkOfARequest(t *testing.T) {
	both(t, func(t *testing.T, way func(testing.TB, string) *path) {
		pieces := make(chan string)
		app := newApp(t, func(c *appConn) {
			if c.head() == "" {
				return
			}
			for {
				line, err := c.r.ReadString('\n')
				if err != nil {
					return
				}
				pieces <- line
				if line == "\r\n" {
					c.send(ok)
				}
			}
		})
		v := visit(t, way(t, app.addr()).addr, "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
		for _, lines := range [][]string{{"1\r\n", "a\r\n"}, {"2\r\n", "bc\r\n"}, {"0\r\n", "\r\n"}} {
			v.send(strings.Join(lines, ""))
			for _, want := range lines {
				if got := within(t, "chunk", pieces); got != want {
					t.Fatalf("got %q, want %q", got, want)
				}
			}
		}
		if m := v.message("POST"); m.body != "hi" {
			t.Error(m)
		}
	})
}

// echo is an app of full duplex.
func echo(w http.ResponseWriter, r *http.Request) {
	rc := http.NewResponseController(w)
	rc.EnableFullDuplex()
	rc.Flush()
	buf := make([]byte, 1<<10)
	for {
		n, err := r.Body.Read(buf)
		w.Write(buf[:n])
		rc.Flush()
		if err != nil {
			return
		}
	}
}

// A request that is answered while it is sent, many times on kept connections.
func TestFullDuplex(t *testing.T) {
	both(t, func(t *testing.T, way func(testing.TB, string) *path) {
		addr := way(t, listen(t, http.HandlerFunc(echo))).addr
		for _, version := range []int{1, 2} {
			t.Run(fmt.Sprint("HTTP/", version), func(t *testing.T) {
				client := clientOf(t, version)
				for i := range 300 {
					pr, pw := io.Pipe()
					res, err := client.Post("http://"+addr, "", pr)
					if err != nil {
						t.Fatal(i, err)
					}
					br := bufio.NewReader(res.Body)
					for j := range 3 {
						want := fmt.Sprintf("%d %d\n", i, j)
						io.WriteString(pw, want)
						if got, err := br.ReadString('\n'); got != want {
							t.Fatalf("got %q, %v; want %q", got, err, want)
						}
					}
					pw.Close()
					if rest, err := io.ReadAll(br); len(rest) > 0 || err != nil {
						t.Fatalf("at the end %q, %v", rest, err)
					}
					res.Body.Close()
				}
			})
		}
	})
}
