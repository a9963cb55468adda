package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/revtun/tunnel/internal/auth"
	"github.com/revtun/tunnel/internal/server"
)

const (
	patience = 30 * time.Second
	large    = 10 << 20
)

// childOf names the server, in the process that is to be killed.
const childOf = "YAMUX_CLIENT_TEST_SERVER"

func TestMain(m *testing.M) {
	if url := os.Getenv(childOf); url != "" {
		fmt.Fprintln(os.Stderr, serve(context.Background(), url, "", "demo", app(), os.Stdout))
		os.Exit(1)
	}
	goleak.VerifyTestMain(m)
}

// app answers what the tests ask for.
func app() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/echo", func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		fmt.Fprintf(w, "%s %s %s %s", r.Method, r.Host, r.RequestURI, body)
	})
	mux.HandleFunc("/sum", func(w http.ResponseWriter, r *http.Request) {
		sum := sha256.New()
		n, err := io.Copy(sum, r.Body)
		fmt.Fprintf(w, "%d %x %v", n, sum.Sum(nil), err)
	})
	mux.HandleFunc("/large", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", strconv.Itoa(large))
		w.Write(noise())
	})
	mux.HandleFunc("/slow", func(w http.ResponseWriter, r *http.Request) {
		http.NewResponseController(w).EnableFullDuplex()
		io.WriteString(w, "first ")
		http.NewResponseController(w).Flush()
		if r.URL.Query().Get("until") == "never" {
			<-r.Context().Done()
			return
		}
		io.Copy(w, r.Body)
	})
	mux.HandleFunc("/upgrade", upgrade)
	return mux
}

// upgrade reads to the end, and then sends much.
func upgrade(w http.ResponseWriter, r *http.Request) {
	conn, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	defer conn.Close()
	io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: test\r\n\r\n")
	heard, err := io.ReadAll(rw)
	fmt.Fprintf(conn, "%d %v\n", len(heard), err)
	conn.Write(noise())
}

// noise is the same for everyone.
func noise() []byte {
	b := make([]byte, large)
	rand.NewChaCha8([32]byte{7}).Read(b)
	return b
}

// lines is an output that a test reads line by line.
type lines chan string

func (l lines) Write(p []byte) (int, error) {
	for line := range strings.Lines(string(p)) {
		l <- strings.TrimSuffix(line, "\n")
	}
	return len(p), nil
}

// world is a server, and the example attached to it.
type world struct {
	t     *testing.T
	addr  string
	stop  func() // drains the server and waits
	out   lines
	ended chan error // what serve returned
}

func startServer(t *testing.T, a auth.Authenticator) *world {
	t.Helper()
	s, err := server.New(server.Config{Listen: "127.0.0.1:0", Auth: a, Grace: patience})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	w := &world{t: t, addr: s.Addr().String(), out: make(lines, 100), ended: make(chan error, 1)}
	w.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(w.stop)
	return w
}

func start(t *testing.T) *world {
	t.Helper()
	w := startServer(t, auth.Anonymous{})
	go func() { w.ended <- serve(context.Background(), "http://"+w.addr, "", "demo", app(), w.out) }()
	_, port, _ := net.SplitHostPort(w.addr)
	if got, want := wait(t, w.out), "http://demo.localhost:"+port; got != want {
		t.Fatalf("printed %q, want %q", got, want)
	}
	return w
}

func wait[T any](t *testing.T, c <-chan T) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(patience):
		t.Fatalf("nothing came in %v", patience)
		panic("unreachable")
	}
}

// send is a visitor's request. The error also says that the answer was cut off.
func (w *world) send(method, path string, body io.Reader) (int, []byte, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, "http://"+w.addr+path, body)
	if err != nil {
		w.t.Fatal(err)
	}
	req.Host = "demo.localhost"
	res, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(req)
	if err != nil {
		return 0, nil, err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	return res.StatusCode, b, err
}

func TestRequests(t *testing.T) {
	w := start(t)
	for range 20 {
		status, body, err := w.send("POST", "/echo?a;b=%2F", strings.NewReader("body"))
		if want := "POST demo.localhost /echo?a;b=%2F body"; err != nil || status != 200 || string(body) != want {
			t.Fatalf("got %d %q, %v; want %q", status, body, err, want)
		}
	}
	var all sync.WaitGroup
	for range 50 {
		all.Go(func() {
			if status, _, err := w.send("GET", "/echo", nil); err != nil || status != 200 {
				t.Errorf("got %d, %v", status, err)
			}
		})
	}
	all.Wait()
}

func TestLargeBodies(t *testing.T) {
	w := start(t)
	sum := sha256.Sum256(noise())
	want := fmt.Sprintf("%d %s <nil>", large, hex.EncodeToString(sum[:]))
	if status, got, err := w.send("PUT", "/sum", bytes.NewReader(noise())); err != nil || status != 200 || string(got) != want {
		t.Errorf("up: %d %s, %v; want %s", status, got, err, want)
	}
	// In chunks, too: the length is not known.
	if status, got, err := w.send("PUT", "/sum", io.MultiReader(bytes.NewReader(noise()))); err != nil || status != 200 || string(got) != want {
		t.Errorf("up in chunks: %d %s, %v; want %s", status, got, err, want)
	}
	status, got, err := w.send("GET", "/large", nil)
	if err != nil || status != 200 || sha256.Sum256(got) != sum {
		t.Errorf("down: %d, %d bytes, %v", status, len(got), err)
	}
}

// R16: the visitor ends its side, and then reads for long.
func TestHalfClose(t *testing.T) {
	w := start(t)
	conn, err := net.Dial("tcp", w.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(patience))
	io.WriteString(conn, "GET /upgrade HTTP/1.1\r\nHost: demo.localhost\r\nConnection: Upgrade\r\nUpgrade: test\r\n\r\n")
	br := bufio.NewReader(conn)
	res, err := http.ReadResponse(br, nil)
	if err != nil || res.StatusCode != 101 {
		t.Fatalf("%+v, %v", res, err)
	}
	if _, err := conn.Write(noise()[:large/10]); err != nil {
		t.Fatal(err)
	}
	if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	heard, err := br.ReadString('\n')
	if want := fmt.Sprintf("%d <nil>\n", large/10); err != nil || heard != want {
		t.Fatalf("the app heard %q, %v; want %q", heard, err, want)
	}
	if got, err := io.ReadAll(br); err != nil || !bytes.Equal(got, noise()) {
		t.Errorf("read %d bytes, %v; want %d", len(got), err, large)
	}
}

// The server says that it will go, lets a request finish, and ends the session:
// the example says both.
func TestServerDrains(t *testing.T) {
	w := start(t)
	body, rest := io.Pipe()
	defer rest.Close()
	req, err := http.NewRequest("POST", "http://"+w.addr+"/slow", body)
	if err != nil {
		t.Fatal(err)
	}
	req.Host = "demo.localhost"
	res, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	stopped := make(chan struct{})
	go func() { defer close(stopped); w.stop() }()
	if got := wait(t, w.out); !strings.Contains(got, "going away") {
		t.Errorf("printed %q", got)
	}
	io.WriteString(rest, "second")
	rest.Close()
	if got, err := io.ReadAll(res.Body); err != nil || string(got) != "first second" {
		t.Errorf("got %q, %v", got, err)
	}
	if err := wait(t, w.ended); err == nil || !strings.Contains(err.Error(), "has ended") || !strings.Contains(err.Error(), "shutting down") {
		t.Errorf("ended with %v", err)
	}
	wait(t, stopped)
}

// R1, R4: the client is killed while it answers: the visitor sees that, whatever
// the framing, and never a short answer that looks whole.
func TestClientKilled(t *testing.T) {
	for _, path := range []string{"/slow?until=never", "/large"} {
		w := startServer(t, auth.Anonymous{})
		child := exec.Command(os.Args[0])
		child.Env = append(os.Environ(), childOf+"=http://"+w.addr)
		child.Stdout = w.out
		if err := child.Start(); err != nil {
			t.Fatal(err)
		}
		defer child.Wait()
		defer child.Process.Kill()
		wait(t, w.out) // its URL

		conn, err := net.Dial("tcp", w.addr)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		conn.SetDeadline(time.Now().Add(patience))
		fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: demo.localhost\r\n\r\n", path)
		res, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil || res.StatusCode != 200 {
			t.Fatalf("%+v, %v", res, err)
		}
		if _, err := io.ReadFull(res.Body, make([]byte, 6)); err != nil {
			t.Fatal(err)
		}
		child.Process.Kill()
		if got, err := io.ReadAll(res.Body); err == nil {
			t.Errorf("%s: %d bytes look like a whole answer", path, len(got))
		}
	}
}

// closedDoor lets nobody in.
type closedDoor struct{ auth.Anonymous }

func (closedDoor) Authenticate(token, session string) (auth.Identity, error) {
	return (auth.Anonymous{}).Authenticate("", "")
}

func TestRefused(t *testing.T) {
	w := startServer(t, closedDoor{})
	err := serve(t.Context(), "http://"+w.addr, "a-token", "demo", app(), io.Discard)
	if err == nil || !strings.Contains(err.Error(), "401") || !strings.Contains(err.Error(), "unauthorized") {
		t.Errorf("got %v, want what the server said", err)
	}
}

func TestNameTaken(t *testing.T) {
	w := start(t)
	err := serve(t.Context(), "http://"+w.addr, "", "demo", app(), io.Discard)
	if err == nil || !strings.Contains(err.Error(), "name_taken") {
		t.Errorf("got %v, want name_taken", err)
	}
}
