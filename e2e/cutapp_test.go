//go:build unix

package e2e

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// cutAppVariable makes the test binary a cutApp.
const cutAppVariable = "E2E_CUT_APP"

// framing is a way in which an answer says where it ends.
type framing struct {
	name   string
	second bool   // the app speaks HTTP/2: head is empty, and HTTP/2's own framing
	head   string // as it is sent by HTTP/1
	body   []byte
	sent   []byte // head, and body as it is framed
}

// framings are all there are, by name.
func framings() map[string]*framing {
	body := noise(100_000, 21)
	var stream strings.Builder
	for n := range 2000 {
		fmt.Fprintf(&stream, "data: %d %s\n\n", n, strings.Repeat("x", n%50))
	}
	all := map[string]*framing{}
	first := func(name, head string, body, sent []byte) {
		all[name] = &framing{name: name, head: head, body: body, sent: append([]byte(head), sent...)}
	}
	first("length", fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n", len(body)), body, body)
	first("chunked", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", body, chunked(body, 9_999))
	first("close", "HTTP/1.1 200 OK\r\n\r\n", body, body)
	first("old", "HTTP/1.0 200 OK\r\nContent-Type: application/octet-stream\r\n\r\n", body, body)
	events := []byte(stream.String())
	first("events", "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n", events, chunked(events, 700))
	for _, name := range []string{"h2", "h2 length", "grpc"} {
		all[name] = &framing{name: name, second: true, body: body}
	}
	return all
}

func chunked(body []byte, size int) []byte {
	var b []byte
	for len(body) > 0 {
		n := min(size, len(body))
		b = fmt.Appendf(b, "%x\r\n%s\r\n", n, body[:n])
		body = body[n:]
	}
	return append(b, "0\r\n\r\n"...)
}

// total is the offset at which all was sent. Of HTTP/2, offset 1 is the header
// section, and the last is the end of the stream.
func (f *framing) total() int {
	if f.second {
		return len(f.body) + 2
	}
	return len(f.sent)
}

// shown is how many bytes of the body are in the first n bytes.
func (f *framing) shown(n int) int {
	switch {
	case f.second:
		return min(max(n-1, 0), len(f.body))
	case n <= len(f.head):
		return 0
	case !strings.Contains(f.head, "chunked"):
		return n - len(f.head)
	}
	res, err := http.ReadResponse(bufio.NewReader(strings.NewReader(string(f.sent[:n]))), nil)
	if err != nil {
		return 0
	}
	body, _ := io.ReadAll(res.Body)
	return len(body)
}

// offsets are n of them, more at the places where the framing changes; n is above 11.
func (f *framing) offsets(n int) []int {
	head, total := max(len(f.head), 1), f.total()
	edges := []int{0, head, head + 1, total - 1, total, head / 2, total - 2, head - 1, total - 5, total - 6, head + 3}
	some := edges
	for i := 1; len(some) < n; i++ {
		some = append(some, head+i*(total-head)/(n-len(edges)+1))
	}
	return some
}

// cutApp runs in a process of its own, so that it can be killed. It answers
// GET /FRAMING/N with the first N bytes of that framing's answer, prints "wrote
// ID" with the request's Id, and waits. SIGUSR1 resets what waits.
type cutApp struct {
	framings map[string]*framing
	out      sync.Mutex // guards standard output
	reset    chan struct{}
}

// cutProcess is a cutApp that was started.
type cutProcess struct {
	*process
	first, second string // host:port of HTTP/1, and of HTTP/2
}

func startCutApp(t *testing.T) *cutProcess {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = environment(cutAppVariable + "=1")
	p := &cutProcess{process: start(t, cmd)}
	fields := strings.Fields(p.out.await(t, "listening"))
	p.first, p.second = fields[1], fields[2]
	return p
}

// runCutApp is the process's main.
func runCutApp() int {
	a := &cutApp{framings: framings(), reset: make(chan struct{})}
	abort := make(chan os.Signal, 1)
	signal.Notify(abort, syscall.SIGUSR1)
	var listeners [2]net.Listener
	for i := range listeners {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		listeners[i] = l
	}
	second := &http.Server{Handler: http.HandlerFunc(a.serveSecond), Protocols: new(http.Protocols)}
	second.Protocols.SetUnencryptedHTTP2(true)
	go second.Serve(listeners[1])
	go func() {
		for {
			conn, err := listeners[0].Accept()
			if err != nil {
				return
			}
			go a.serveFirst(conn.(*net.TCPConn))
		}
	}()
	a.print("listening", listeners[0].Addr(), listeners[1].Addr())
	<-abort
	close(a.reset)
	select {} // until it is killed
}

func (a *cutApp) print(words ...any) {
	a.out.Lock()
	defer a.out.Unlock()
	fmt.Println(words...)
}

// ask finds what a request asks for.
func (a *cutApp) ask(r *http.Request) (f *framing, n int, err error) {
	name, offset, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	if f = a.framings[name]; f == nil {
		return nil, 0, errors.New("no such framing")
	}
	n, err = strconv.Atoi(offset)
	return f, n, err
}

func (a *cutApp) serveFirst(conn *net.TCPConn) {
	defer conn.Close()
	read := bufio.NewReader(conn)
	for {
		r, err := http.ReadRequest(read)
		if err != nil {
			return
		}
		f, n, err := a.ask(r)
		if err != nil {
			return
		}
		conn.Write(f.sent[:n])
		a.print("wrote", r.Header.Get("Id"))
		if n == len(f.sent) && f.shown(n-1) == len(f.body) {
			continue // the framing has told the end
		}
		if n == len(f.sent) && strings.Contains(f.head, "Content-Length") {
			continue
		}
		<-a.reset
		conn.SetLinger(0)
		return
	}
}

func (a *cutApp) serveSecond(w http.ResponseWriter, r *http.Request) {
	f, n, err := a.ask(r)
	if err != nil {
		w.WriteHeader(http.StatusNotFound)
		return
	}
	switch f.name {
	case "h2 length":
		w.Header().Set("Content-Length", strconv.Itoa(len(f.body)))
	case "grpc":
		w.Header().Set("Content-Type", "application/grpc")
		w.Header().Set("Trailer", "Grpc-Status")
	}
	if n > 0 {
		w.Write(f.body[:f.shown(n)])
		http.NewResponseController(w).Flush()
	}
	a.print("wrote", r.Header.Get("Id"))
	if n == f.total() {
		w.Header().Set("Grpc-Status", "0")
		return
	}
	select {
	case <-a.reset:
	case <-r.Context().Done():
	}
	panic(http.ErrAbortHandler)
}
