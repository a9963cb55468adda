package main

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/revtun/tunnel/internal/rig"
)

func serveTest(t *testing.T, h http.Handler) string {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s.Listener.Addr().String()
}

// measured is what l gets, and measures for longer where a busy machine answers nothing in time.
func measured(l *load) (*loadResult, error) {
	for {
		got, err := l.run()
		if !errors.Is(err, errNoAnswer) || l.measure > patience {
			return got, err
		}
		l.measure *= 4
	}
}

func TestLoadCountsAnswers(t *testing.T) {
	addr := serveTest(t, rig.NewPlainApp())
	marks := 0
	l := &load{addr: addr, host: addr, conns: 3, measure: 10 * time.Millisecond, mark: func() { marks++ }}
	got, err := measured(l)
	if err != nil {
		t.Fatal(err)
	}
	if got.latency.total == 0 || got.elapsed < l.measure || marks < 2 || marks%2 != 0 { // two for each run
		t.Errorf("%d answers in %v, %d marks", got.latency.total, got.elapsed, marks)
	}
}

func TestLoadFailsOnWrongAnswers(t *testing.T) {
	for name, h := range map[string]http.HandlerFunc{
		"status": func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusBadGateway)
			io.WriteString(w, rig.Hello)
		},
		"body":       func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "Hello, there!") },
		"longer":     func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, rig.Hello+rig.Hello) },
		"large":      func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, strings.Repeat("x", 10000)) },
		"redirect":   func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/", http.StatusFound) },
		"cut off":    func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
		"not at all": http.NotFound,
	} {
		addr := serveTest(t, h)
		l := &load{addr: addr, host: addr, conns: 1, measure: time.Millisecond}
		if _, err := l.run(); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// Only the first answer of a connection is parsed as HTTP.
func TestVisitorChecksLaterAnswersToo(t *testing.T) {
	for name, second := range map[string]struct {
		status int
		body   string
	}{
		"status": {http.StatusServiceUnavailable, rig.Hello},
		"body":   {http.StatusOK, "Hello, there!"},
	} {
		answers := 0
		addr := serveTest(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			if answers++; answers == 1 {
				io.WriteString(w, rig.Hello)
				return
			}
			w.WriteHeader(second.status)
			io.WriteString(w, second.body)
		}))
		v, err := dialVisitor(addr, addr, time.Now().Add(patience))
		if err != nil {
			t.Fatal(err)
		}
		if err := v.small(); err != nil {
			t.Fatal(err)
		}
		if err := v.small(); err == nil {
			t.Errorf("the second answer's %s goes unnoticed", name)
		}
		v.close()
	}
}

func TestTransfers(t *testing.T) {
	addr := serveTest(t, rig.NewPlainApp())
	for name, move := range map[string]func(*transfer) error{"down": (*transfer).down, "up": (*transfer).up} {
		b := &transfer{addr: addr, host: addr, bytes: 1<<20 + 1, limit: patience}
		if err := b.dial(); err != nil {
			t.Fatal(err)
		}
		if err := move(b); err != nil || b.moved.Load() != b.bytes {
			t.Errorf("%s: %d of %d bytes, %v", name, b.moved.Load(), b.bytes, err)
		}
		b.close()
	}
	if n, err := ask(addr, "/received"); err != nil || n != 1<<20+1 {
		t.Errorf("the app received %d bytes, %v", n, err)
	}
}

func TestTransfersNoticeWhatIsMissing(t *testing.T) {
	short := serveTest(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost {
			io.WriteString(w, "17")
			return
		}
		io.WriteString(w, "a body that is complete, and shorter than was asked for")
	}))
	for name, move := range map[string]func(*transfer) error{"down": (*transfer).down, "up": (*transfer).up} {
		b := &transfer{addr: short, host: short, bytes: 1000, limit: patience}
		if err := b.dial(); err != nil {
			t.Fatal(err)
		}
		if err := move(b); err == nil {
			t.Errorf("%s: no error", name)
		}
		b.close()
	}
}

func TestAppHangsUntilReleased(t *testing.T) {
	a := rig.NewPlainApp()
	addr := serveTest(t, a)
	answer := make(chan error)
	go func() { answer <- hanging(&tunnel{plan: &plan{visit: addr, host: addr}}) }()
	for deadline := time.Now().Add(patience); ; {
		if n, err := ask(addr, "/waiting"); err == nil && n == 1 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the request does not hang")
		}
	}
	if _, err := http.Post("http://"+addr+"/release", "", nil); err != nil {
		t.Fatal(err)
	}
	if err := <-answer; err != nil {
		t.Error(err)
	}
}
