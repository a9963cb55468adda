package edge_test

import (
	"encoding/json"
	"log/slog"
	"net/netip"
	"strings"
	"testing"

	"github.com/revtun/tunnel/internal/rig/poll"
	"github.com/revtun/tunnel/internal/server"
)

// S22: whatever stands in a request, it makes one line in the log, of either form,
// in which nothing moves a terminal's cursor.
func TestLogInjectionInBothForms(t *testing.T) {
	for form, handler := range map[string]func(*logs) slog.Handler{
		"text": func(l *logs) slog.Handler {
			return slog.NewTextHandler(l, &slog.HandlerOptions{Level: slog.LevelDebug})
		},
		"json": func(l *logs) slog.Handler {
			return slog.NewJSONHandler(l, &slog.HandlerOptions{Level: slog.LevelDebug})
		},
	} {
		t.Run(form, func(t *testing.T) {
			log := new(logs)
			addr := tenants(t, server.Config{Log: slog.New(handler(log)), Trusted: []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")}})
			const evil = "\u009b2J\" level=ERROR msg=forged"
			requests := [][]string{
				{"GET /%0d%0alevel=ERROR%20msg=forged%1b[2J?a=%0a HTTP/1.1", "Host: demo.example.com", "User-Agent: " + evil},
				{"G%0AET /" + strings.ReplaceAll(evil, " ", "") + " HTTP/1.1", "Host: demo.example.com"},
				{"GET / HTTP/1.1", "Host: demo.example.com", "X-Forwarded-Host: " + evil, "X-Forwarded-For: " + evil, "X-Forwarded-Proto: " + evil},
				{"GET / HTTP/1.1", "Host: nobody.example.com", "Referer: " + evil, "Cookie: " + evil, "Authorization: " + evil},
				{"POST / HTTP/1.1", "Host: demo.example.com", "Content-Length: 0", "Transfer-Encoding: chunked", evil + ": x"},
				{"GET / HTTP/1.1", "Host: demo.example.com", "X\x1b: y"},
				{"GET / HTTP/1.1\x1b[2J", "Host: demo.example.com"},
			}
			for _, lines := range requests {
				get(t, addr, append(lines, "Connection: close")...)
			}
			for _, field := range []string{":method", ":path", ":authority", "x-forwarded-host", "user-agent"} {
				fields := map[string]string{":method": "GET", ":scheme": "http", ":path": "/", ":authority": "demo.example.com"}
				fields[field] = "/" + strings.ReplaceAll(evil, " ", "")
				var list [][2]string
				for _, name := range []string{":method", ":scheme", ":path", ":authority", "x-forwarded-host", "user-agent"} {
					if fields[name] != "" {
						list = append(list, [2]string{name, fields[name]})
					}
				}
				getHTTP2(t, addr, list)
			}
			poll.Until(t, "the access lines", func() bool { return strings.Count(strings.Join(log.lines(), "\n"), "nobody.example.com") > 0 })
			for _, line := range log.lines() {
				if strings.ContainsFunc(line, func(c rune) bool { return c < ' ' || 0x7f <= c && c < 0xa0 }) {
					t.Errorf("in the log: %q", line)
				}
				if form == "json" {
					var fields map[string]any
					if err := json.Unmarshal([]byte(line), &fields); err != nil || fields["level"] == "ERROR" {
						t.Errorf("%v: %q", err, line)
					}
				} else if !strings.HasPrefix(line, "time=") || strings.HasPrefix(line[strings.Index(line, " "):], " level=ERROR") {
					t.Errorf("in the log: %q", line)
				}
			}
		})
	}
}
