// Command visit makes one request to a public URL, as a visitor would, and shows the answer's status
// line and the start of its body:
//
//	go run ./scripts/visit http://NAME.localhost:8080/
//
// It dials the loopback address itself for localhost and the names below it, which not every
// resolver knows (RFC 6761, section 6.3). It exits with 1 where the app behind the URL did not
// answer: no connection, or an error of the tunnel's own.
package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"time"
	"unicode"
)

const (
	timeout   = 15 * time.Second
	maxLines  = 12
	maxColumn = 100
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: visit URL")
		os.Exit(2)
	}
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	if err := visit(ctx, os.Args[1], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "visit:", err)
		os.Exit(1)
	}
}

// visit requests url and writes what it got to w. The error says why the app did not answer.
func visit(ctx context.Context, url string, w io.Writer) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	// A transport of its own, so that neither a proxy nor a redirect takes the request elsewhere.
	t := &http.Transport{DialContext: dial}
	defer t.CloseIdleConnections()
	resp, err := t.RoundTrip(req)
	if err != nil {
		return fmt.Errorf("no answer: %w", err)
	}
	defer resp.Body.Close()

	fmt.Fprintf(w, "GET %s\n%s %s\n", req.URL, resp.Proto, printable(resp.Status))
	for _, name := range []string{"Location", "Content-Type", "Tunnel-Error"} {
		if v := resp.Header.Get(name); v != "" {
			fmt.Fprintf(w, "%s: %s\n", name, printable(v))
		}
	}
	fmt.Fprintln(w)
	if err := show(w, resp.Body); err != nil {
		return fmt.Errorf("the answer was cut off: %w", err)
	}
	if code := resp.Header.Get("Tunnel-Error"); code != "" {
		return errors.New("the tunnel answered, not the app: " + printable(code))
	}
	return nil
}

// show writes the first lines of body, each cut to a terminal's width.
func show(w io.Writer, body io.Reader) error {
	lines := bufio.NewReader(io.LimitReader(body, maxLines*4096))
	for range maxLines {
		line, err := lines.ReadString('\n')
		if line != "" {
			fmt.Fprintln(w, printable(strings.TrimRight(line, "\r\n")))
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
	fmt.Fprintln(w, "...")
	return nil
}

// printable cuts s and drops what could steer the terminal.
func printable(s string) string {
	s = strings.Map(func(r rune) rune {
		if r == '\t' {
			return ' '
		}
		if !unicode.IsPrint(r) {
			return -1
		}
		return r
	}, s)
	if r := []rune(s); len(r) > maxColumn {
		return string(r[:maxColumn]) + "..."
	}
	return s
}

// dial connects to addr, which leads to this machine where its host is localhost or below it.
func dial(ctx context.Context, network, addr string) (net.Conn, error) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	if host = strings.ToLower(strings.TrimSuffix(host, ".")); host == "localhost" || strings.HasSuffix(host, ".localhost") {
		addr = net.JoinHostPort("127.0.0.1", port)
	}
	return new(net.Dialer).DialContext(ctx, network, addr)
}
