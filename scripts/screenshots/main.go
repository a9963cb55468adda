// Command screenshots makes the pictures of the inspector that the README shows:
//
//	scripts/screenshots.sh
//
// It starts the two commands, a shop behind them and a headless Chromium, and looks at the
// inspector's page as a person would: shop.go is what there is to see, browser.go how it is
// seen.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// maxPicture bounds a picture, in bytes: each clone of the repository has them.
const maxPicture = 200 << 10

func main() {
	bin := flag.String("bin", "bin", "`folder` with tunnel-server and tunnel-client")
	out := flag.String("out", "docs/img", "`folder` for the pictures")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	if err := run(ctx, *bin, *out); err != nil {
		fmt.Fprintln(os.Stderr, "screenshots:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, bin, out string) error {
	home, err := os.MkdirTemp("", "screenshots-home-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(home)
	shop := httptest.NewServer(http.HandlerFunc(serveShop))
	defer shop.Close()
	ctx, cancel := context.WithCancel(ctx)
	s := &stage{ctx: ctx, bin: bin, home: home}
	defer s.wait()
	defer cancel()
	if err := s.open(shop.URL); err != nil {
		return err
	}
	if err := visitShop(ctx, s.public, s.server); err != nil {
		return err
	}
	b, err := s.browse()
	if err != nil {
		return err
	}
	for _, p := range pictures() {
		for _, scheme := range []string{"light", "dark"} {
			png, err := b.take(p, scheme)
			if err != nil {
				return fmt.Errorf("%s: %w", p.name, err)
			}
			if len(png) > maxPicture {
				return fmt.Errorf("%s has %d bytes, more than %d", p.name, len(png), maxPicture)
			}
			file := filepath.Join(out, p.name+"-"+scheme+".png")
			if err := os.WriteFile(file, png, 0o644); err != nil {
				return err
			}
			fmt.Println(file)
		}
	}
	return nil
}

// stage is the processes.
type stage struct {
	ctx       context.Context
	bin, home string
	processes []*exec.Cmd

	server    string // HOST:PORT
	public    string // URL of the shop
	inspector string // URL
}

// open starts server and client, and learns where things are.
func (s *stage) open(app string) error {
	_, errors, err := s.start(filepath.Join(s.bin, "tunnel-server"), "serve", "--listen", "127.0.0.1:0", "--domain", "tunnel.example.com", "--log-format", "json")
	if err != nil {
		return err
	}
	var listening struct{ Msg, Addr string }
	if err := find(errors, &listening, func() bool { return listening.Msg == "listening" }); err != nil {
		return fmt.Errorf("the server: %w", err)
	}
	s.server = listening.Addr
	lines, _, err := s.start(filepath.Join(s.bin, "tunnel-client"), "http", app, "--json", "--name", "shop", "--server", "http://"+s.server, "--log-level", "error")
	if err != nil {
		return err
	}
	var ready struct{ Event, URL, Inspect string }
	if err := find(lines, &ready, func() bool { return ready.Event == "ready" }); err != nil {
		return fmt.Errorf("the client: %w", err)
	}
	s.public, s.inspector = ready.URL, ready.Inspect
	return nil
}

// start starts a process that ends with the stage.
func (s *stage) start(path string, args ...string) (out, errors io.Reader, err error) {
	cmd := exec.CommandContext(s.ctx, path, args...)
	cmd.Env = []string{"HOME=" + s.home, "XDG_STATE_HOME=" + s.home, "PATH=" + os.Getenv("PATH")}
	if out, err = cmd.StdoutPipe(); err != nil {
		return nil, nil, err
	}
	if errors, err = cmd.StderrPipe(); err != nil {
		return nil, nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, nil, err
	}
	s.processes = append(s.processes, cmd)
	return out, errors, nil
}

func (s *stage) wait() {
	for _, cmd := range s.processes {
		cmd.Wait()
	}
}

// find reads JSON, a line each, into v until ok holds.
func find(r io.Reader, v any, ok func() bool) error {
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		if json.Unmarshal(lines.Bytes(), v) == nil && ok() {
			go io.Copy(io.Discard, r) // or it blocks
			return nil
		}
	}
	return errors.Join(lines.Err(), errors.New("it ended before it was ready"))
}

// dialer leads all names to addr.
func dialer(addr string) func(context.Context, string, string) (net.Conn, error) {
	return func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, addr)
	}
}

func post(ctx context.Context, c *http.Client, url, kind, body string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, strings.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", kind)
	req.Header.Set("User-Agent", "Pay/1.0 (+https://pay.example/webhooks)")
	req.Header.Set("Authorization", "Bearer shop-secret")
	return send(c, req)
}

func send(c *http.Client, req *http.Request) error {
	res, err := c.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	_, err = io.Copy(io.Discard, res.Body)
	return err
}
