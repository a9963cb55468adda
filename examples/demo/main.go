// Command demo is a small local app to try a tunnel with. It needs nothing but itself:
//
//	go run ./examples/demo --listen 127.0.0.1:3000
//
// Its page shows the request as this app, behind the tunnel, received it (to curl as plain text); a
// clock whose every second is a server-sent event, to see that streams are not held back; and an echo,
// to see that bodies pass in both directions. Without --listen it takes a free port. Its first line of
// output is its address.
package main

import (
	"context"
	_ "embed"
	"errors"
	"flag"
	"fmt"
	"html/template"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"
)

//go:embed page.html
var page string

func main() {
	listen := flag.String("listen", "127.0.0.1:0", "`address` to listen on; port 0 takes a free one")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *listen, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

// run serves on addr until ctx ends, and lets what is in flight finish for 3 s. It writes its
// address to w once it accepts connections.
func run(ctx context.Context, addr string, w io.Writer) error {
	h, err := handler(time.Second)
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	fmt.Fprintf(w, "http://%s\n", l.Addr())
	srv := &http.Server{
		Handler:           h,
		ReadHeaderTimeout: 10 * time.Second,
		BaseContext:       func(net.Listener) context.Context { return ctx }, // ends the clocks
	}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(l) }()
	select {
	case err := <-served:
		return err
	case <-ctx.Done():
	}
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), 3*time.Second)
	defer cancel()
	if err := srv.Shutdown(grace); err != nil {
		srv.Close()
	}
	if err := <-served; !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// handler serves the page on every path but those of the echo and the clock, which ticks once per
// interval.
func handler(interval time.Duration) (http.Handler, error) {
	t, err := template.New("page").Parse(page)
	if err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /clock", func(w http.ResponseWriter, r *http.Request) { clock(w, r, interval) })
	mux.HandleFunc("POST /echo", echo)
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "no-store")
		if !strings.Contains(r.Header.Get("Accept"), "text/html") {
			for _, f := range seen(r) {
				fmt.Fprintf(w, "%-18s %s\n", f.Name, f.Value)
			}
			return
		}
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		// An error here is the visitor's leaving: there is nobody to tell.
		_ = t.Execute(w, seen(r))
	})
	return mux, nil
}

// field is a line of the page's table.
type field struct{ Name, Value string }

// seen lists what the app received, the fields of the header in alphabetical order.
func seen(r *http.Request) []field {
	fields := []field{
		{"Request", fmt.Sprintf("%s %s %s", r.Method, r.RequestURI, r.Proto)},
		{"Connection from", r.RemoteAddr},
		{"Host", r.Host},
	}
	var header []field
	for name, values := range r.Header {
		header = append(header, field{name, strings.Join(values, ", ")})
	}
	slices.SortFunc(header, func(a, b field) int { return strings.Compare(a.Name, b.Name) })
	return append(fields, header...)
}

// clock sends the time as one server-sent event per interval until the visitor leaves.
func clock(w http.ResponseWriter, r *http.Request, interval time.Duration) {
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-store")
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for now := time.Now(); ; {
		_, err := fmt.Fprintf(w, "data: %s\n\n", now.Format("15:04:05"))
		if err != nil || http.NewResponseController(w).Flush() != nil {
			return
		}
		select {
		case now = <-ticker.C:
		case <-r.Context().Done():
			return
		}
	}
}

// echo answers with the request's body, of any size: it holds none of it.
func echo(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	_ = http.NewResponseController(w).EnableFullDuplex() // an error says that it needs no enabling
	if _, err := io.Copy(w, r.Body); err != nil {
		panic(http.ErrAbortHandler) // the answer must not look complete
	}
}
