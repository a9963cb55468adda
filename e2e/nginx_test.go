//go:build unix

package e2e

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/coder/websocket"

	"github.com/revtun/tunnel/internal/rig"
)

// behindNginx runs a server, and nginx before it with the block of
// docs/nginx.conf. It returns the URL of nginx.
func behindNginx(t *testing.T, cert *rig.Certificate) string {
	t.Helper()
	nginx := need(t, "nginx", "nginx")
	for range 5 {
		// nginx cannot choose a port, so another process may be faster.
		port := rig.FreePorts(t, 1)
		url := fmt.Sprintf("https://localhost:%d", port)
		s := startServer(t, "--public-url", url, "--trusted-proxies", "127.0.0.1")
		if startNginx(t, nginx, port, s.url, cert) {
			return url
		}
		s.kill()
	}
	t.Fatal("no port stayed free")
	return ""
}

// startNginx reports whether port was free.
func startNginx(t *testing.T, nginx string, port int, server string, cert *rig.Certificate) bool {
	t.Helper()
	block, err := os.ReadFile(filepath.Join("..", "docs", "nginx.conf"))
	if err != nil {
		t.Fatal(err)
	}
	for _, change := range [][2]string{
		{"listen 443 ssl;", fmt.Sprintf("listen 127.0.0.1:%d ssl;", port)},
		{"server_name tunnel.example.com *.tunnel.example.com;", "server_name localhost *.localhost;"},
		{"/etc/ssl/tunnel.example.com.pem;", cert.Cert + ";"},
		{"/etc/ssl/tunnel.example.com.key;", cert.Key + ";"},
		{"proxy_pass http://127.0.0.1:8080;", "proxy_pass " + server + ";"},
	} {
		if bytes.Count(block, []byte(change[0])) != 1 {
			t.Fatalf("docs/nginx.conf has %q not once", change[0])
		}
		block = bytes.Replace(block, []byte(change[0]), []byte(change[1]), 1)
	}
	return runNginx(t, nginx, string(block), port)
}

// runNginx runs nginx with block in its http section. It reports whether its ports were
// free, of which port is one.
func runNginx(t *testing.T, nginx, block string, port int) bool {
	t.Helper()
	dir := t.TempDir()
	// Around the block is what lets nginx run in one folder, for anybody.
	temporary := ""
	for _, kind := range []string{"client_body", "proxy", "fastcgi", "uwsgi", "scgi"} {
		temporary += fmt.Sprintf("%s_temp_path %s;\n", kind, filepath.Join(dir, kind))
	}
	conf := filepath.Join(dir, "nginx.conf")
	writeFile(t, conf, fmt.Sprintf("daemon off;\nmaster_process off;\npid %s;\nerror_log stderr notice;\nevents {}\nhttp {\naccess_log off;\n%s%s}\n",
		filepath.Join(dir, "pid"), temporary, block))
	p := start(t, exec.Command(nginx, "-e", "stderr", "-p", dir, "-c", conf))
	line, err := p.errors.find(func(line string) (string, bool) {
		return line, strings.Contains(line, "Address already in use") || strings.Contains(line, "event method") || strings.Contains(line, "[emerg]")
	})
	switch {
	case err != nil:
		t.Fatalf("nginx did not start: %v", err)
	case strings.Contains(line, "Address already in use"):
		return false
	case strings.Contains(line, "[emerg]"):
		t.Fatalf("nginx did not start: %s", line)
	}
	eventually(t, "nginx's port", func() bool {
		conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err == nil {
			conn.Close()
		}
		return err == nil
	})
	return true
}

// nginxApp is the local app behind nginx.
func nginxApp(events http.Handler, pieces chan<- string) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/seen", events)
	mux.Handle("/events", events)
	mux.Handle("/pieces", uploadApp(pieces))
	mux.HandleFunc("/sum", func(w http.ResponseWriter, r *http.Request) {
		b, err := io.ReadAll(r.Body)
		fmt.Fprint(w, sum(b), err)
	})
	mux.HandleFunc("/moved", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Location", "http://"+r.Host+"/there")
		w.WriteHeader(http.StatusFound)
	})
	mux.HandleFunc("/socket", func(w http.ResponseWriter, r *http.Request) {
		c, err := websocket.Accept(w, r, nil) // checks Origin against Host
		if err != nil {
			return
		}
		defer c.CloseNow()
		for {
			kind, message, err := c.Read(r.Context())
			if err != nil || c.Write(r.Context(), kind, message) != nil {
				return
			}
		}
	})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !strings.HasPrefix(r.RequestURI, "//") {
			mux.ServeHTTP(w, r)
			return
		}
		h := r.Header
		fmt.Fprintf(w, "%s %s, for %q, host %q, proto %q, forwarded %q", r.Host, r.RequestURI,
			h["X-Forwarded-For"], h["X-Forwarded-Host"], h["X-Forwarded-Proto"], append(h["Forwarded"], h["X-Forwarded-Port"]...))
	})
}

// TestNginx has nginx before the server, for the visitors and for the client.
func TestNginx(t *testing.T) {
	cert := rig.NewCertificate(t, "localhost", "*.localhost")
	public := behindNginx(t, cert)
	eachTransport(t, func(t *testing.T, transport string) {
		a, pieces := newEventApp(), make(chan string)
		target := app(t, nginxApp(a, pieces))
		client := startClient(t, target, "--server", public, "--ca", cert.Cert, "--name", "app", "--transport", transport)
		if want := strings.Replace(public, "localhost", "app.localhost", 1); client.url != want {
			t.Errorf("URL %s, want %s", client.url, want)
		}
		c := visitor(t)
		tr := c.Transport.(*http.Transport)
		tr.TLSClientConfig = &tls.Config{RootCAs: cert.Roots}
		// The visitor has an address of its own.
		tr.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
			_, port, _ := net.SplitHostPort(addr)
			return (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}}).DialContext(ctx, network, "127.0.0.1:"+port)
		}
		t.Run("request", func(t *testing.T) { nginxRequest(t, c, client.url, target) })
		t.Run("events", func(t *testing.T) { readEvents(t, c, client.url) })
		t.Run("upload streams", func(t *testing.T) { streamUpload(t, c, client.url+"/pieces", pieces) })
		t.Run("upload of 20 MB", func(t *testing.T) {
			content := noise(20<<20, 11)
			res, err := c.Post(client.url+"/sum", "application/octet-stream", bytes.NewReader(content))
			if err != nil {
				t.Fatal(err)
			}
			defer res.Body.Close()
			if b, err := io.ReadAll(res.Body); string(b) != sum(content)+"<nil>" || err != nil {
				t.Errorf("%s %q, %v", res.Status, b, err)
			}
		})
		t.Run("WebSocket", func(t *testing.T) { nginxWebSocket(t, c, client.url) })
		t.Run("app's redirect", func(t *testing.T) {
			res, _ := fetch(t, c, client.url+"/moved")
			if got, want := res.Header.Get("Location"), client.url+"/there"; got != want {
				t.Errorf("Location %s, want %s", got, want)
			}
		})
	})
}

// nginxRequest makes a request that lies about where it comes from.
func nginxRequest(t *testing.T, c *http.Client, public, target string) {
	req, err := http.NewRequest("GET", public+"//a/%2F;b?c;d=%41", nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Forwarded-Port", "X-Real-IP", "X_Forwarded_For"} {
		req.Header.Set(name, "6.6.6.6")
	}
	req.Header.Set("Forwarded", "for=6.6.6.6")
	res, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	got, err := io.ReadAll(res.Body)
	want := fmt.Sprintf("%s //a/%%2F;b?c;d=%%41, for %q, host %q, proto %q, forwarded []", target,
		[]string{"127.0.0.2, 127.0.0.1"}, []string{hostOf(t, public)}, []string{"https"})
	if err != nil || string(got) != want {
		t.Errorf("the app saw\n%s, %v\nwant\n%s", got, err, want)
	}
}

func nginxWebSocket(t *testing.T, c *http.Client, public string) {
	ctx := bounded(t, patience)
	ws, _, err := websocket.Dial(ctx, public+"/socket", &websocket.DialOptions{
		HTTPClient: c, HTTPHeader: http.Header{"Origin": {public}},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer ws.CloseNow()
	for n := range 20 {
		message := noise(n*1000, byte(n))
		if err := ws.Write(ctx, websocket.MessageBinary, message); err != nil {
			t.Fatal(err)
		}
		if _, got, err := ws.Read(ctx); err != nil || !bytes.Equal(got, message) {
			t.Fatalf("message %d: %d bytes, %v", n, len(got), err)
		}
	}
	if err := ws.Close(websocket.StatusNormalClosure, "done"); err != nil {
		t.Error(err)
	}
}
