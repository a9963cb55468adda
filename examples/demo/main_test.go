package main

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

func start(t *testing.T) string {
	t.Helper()
	h, err := handler(time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	return srv.URL
}

func TestPageShowsTheRequest(t *testing.T) {
	url := start(t)
	tests := []struct {
		accept, contentType string
		want                []string
	}{
		{"text/html,*/*", "text/html; charset=utf-8", []string{"X-Forwarded-For</th><td>192.0.2.1<", "&lt;script&gt;alert(1)"}},
		{"*/*", "text/plain; charset=utf-8", []string{"X-Forwarded-For    192.0.2.1\n"}},
	}
	for _, tt := range tests {
		req, err := http.NewRequest(http.MethodGet, url+"/any/where?a=1;b=2", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Host = "calm-otter.localhost"
		req.Header = http.Header{
			"Accept": {tt.accept}, "X-Forwarded-For": {"192.0.2.1"}, "X-Markup": {"<script>alert(1)</script>"},
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		if got := resp.Header.Get("Content-Type"); got != tt.contentType {
			t.Errorf("Accept %s: Content-Type %q, want %q", tt.accept, got, tt.contentType)
		}
		for _, want := range append(tt.want, "GET /any/where?a=1;b=2 HTTP/1.1", "calm-otter.localhost") {
			if !strings.Contains(string(body), want) {
				t.Errorf("Accept %s: the page lacks %q:\n%s", tt.accept, want, body)
			}
		}
	}
}

func TestClockSendsEvents(t *testing.T) {
	resp, err := http.Get(start(t) + "/clock")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if got := resp.Header.Get("Content-Type"); got != "text/event-stream" {
		t.Errorf("Content-Type %q", got)
	}
	lines := bufio.NewScanner(resp.Body)
	for range 3 {
		if !lines.Scan() || !strings.HasPrefix(lines.Text(), "data: ") {
			t.Fatalf("line %q, want an event; %v", lines.Text(), lines.Err())
		}
		if !lines.Scan() || lines.Text() != "" {
			t.Fatalf("line %q, want the event's end; %v", lines.Text(), lines.Err())
		}
	}
}

func TestEchoOfAnySize(t *testing.T) {
	url := start(t)
	// Without full duplex, net/http drops the rest of a body of 100 KiB when the answer begins.
	for _, size := range []int{0, 5, 100 << 10, 8 << 20} {
		body := bytes.Repeat([]byte("x"), size)
		resp, err := http.Post(url+"/echo", "text/plain", bytes.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		got, err := io.ReadAll(resp.Body)
		if err != nil || !bytes.Equal(got, body) {
			t.Errorf("echo of %d bytes: %d bytes, %v", size, len(got), err)
		}
	}
}

func TestRunTellsItsAddressAndEndsWithClocksRunning(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	out, w := io.Pipe()
	ended := make(chan error, 1)
	go func() { ended <- run(ctx, "127.0.0.1:0", w) }()
	addr, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.Get(strings.TrimSpace(addr) + "/clock")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if _, err := io.ReadAll(resp.Body); err != nil {
		t.Errorf("the clock did not end cleanly: %v", err)
	}
}
