//go:build unix

package e2e

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/webdav"
)

// curlApp answers what the curl tests ask for. It is its own witness: /echo
// shows the request as it came.
func curlApp(large []byte) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/large", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Etag", `"v1"`)
		http.ServeContent(w, r, "large.bin", time.Unix(1e9, 0), bytes.NewReader(large))
	})
	mux.HandleFunc("/chunked", func(w http.ResponseWriter, r *http.Request) {
		for part := range 8 {
			w.Write(large[part*1000 : (part+1)*1000])
			http.NewResponseController(w).Flush()
		}
	})
	mux.HandleFunc("/gzip", func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Accept-Encoding") == "" {
			io.WriteString(w, "not asked to compress")
			return
		}
		w.Header().Set("Content-Encoding", "gzip")
		z := gzip.NewWriter(w)
		io.WriteString(z, "compressed by the app\n")
		z.Close()
	})
	mux.HandleFunc("/refuse", func(w http.ResponseWriter, r *http.Request) {
		http.Error(w, "too large for me", http.StatusRequestEntityTooLarge)
	})
	mux.HandleFunc("/empty", func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(http.StatusNoContent) })
	echo := func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		w.Header()["X-Twice"] = []string{"one", "two"}
		fmt.Fprintf(w, "%s %s\nlength %d %q\nexpect %q\nbody %d %s %v\n", r.Method, r.RequestURI, r.ContentLength,
			r.TransferEncoding, r.Header.Get("Expect"), len(body), sum(body), err)
	}
	mux.HandleFunc("/", echo)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Date", "Sun, 09 Sep 2001 01:46:40 GMT") // the same for each request
		if r.RequestURI == "/" || strings.HasPrefix(r.RequestURI, "//") || r.RequestURI == "*" {
			echo(w, r) // ServeMux would redirect
			return
		}
		mux.ServeHTTP(w, r)
	})
}

// curl is the program, with a folder for its files.
type curl struct{ path, dir string }

// command runs in c's folder and finds base on this machine.
func (c curl) command(t *testing.T, base string, args ...string) *exec.Cmd {
	host := hostOf(t, base)
	_, port, _ := net.SplitHostPort(host)
	cmd := exec.Command(c.path, append([]string{"-q", "-sS", "--max-time", "60", "--connect-to", host + ":127.0.0.1:" + port}, args...)...)
	cmd.Env, cmd.Dir = environment("HOME="+home), c.dir
	return cmd
}

// TestCurl makes each request directly and through the tunnel: the answers are
// the same to the byte, header included (R26). Only the order of fields by
// different names is free (RFC 9110, section 5.3).
func TestCurl(t *testing.T) {
	c := curl{path: need(t, "curl", "curl"), dir: t.TempDir()}
	large := noise(4<<20, 1)
	direct := "http://" + app(t, curlApp(large))
	upload := filepath.Join(c.dir, "upload.bin")
	if err := os.WriteFile(upload, noise(3<<20, 2), 0o600); err != nil {
		t.Fatal(err)
	}
	tunnels := map[string]string{"raw": expose(t, direct, "raw"), "websocket": expose(t, direct, "websocket")}
	for _, one := range []struct {
		name, path string
		args       []string
		stdin      []byte
		body       []byte // nil: whatever the app says
	}{
		{name: "get", path: "/large", body: large},
		{name: "HTTP 1.0", path: "/large", args: []string{"--http1.0"}, body: large},
		{name: "HTTP 1.0, end is the connection's", path: "/chunked", args: []string{"--http1.0"}, body: large[:8000]},
		{name: "HTTP 1.0 upload", path: "/echo", args: []string{"--http1.0", "-T", upload}},
		{name: "chunked", path: "/chunked", body: large[:8000]},
		{name: "HTTP 2", path: "/large", args: []string{"--http2-prior-knowledge"}, body: large},
		{name: "HTTP 2 chunked", path: "/chunked", args: []string{"--http2-prior-knowledge"}, body: large[:8000]},
		{name: "range", path: "/large", args: []string{"-r", "1000-1999"}, body: large[1000:2000]},
		{name: "range beyond the end", path: "/large", args: []string{"-r", "99999999-"}},
		{name: "not modified", path: "/large", args: []string{"-H", "If-None-Match: \"v1\""}, body: []byte{}},
		{name: "no content", path: "/empty", body: []byte{}},
		{name: "head", path: "/large", args: []string{"-I"}},
		{name: "slow reader", path: "/large", args: []string{"--limit-rate", "2M"}, body: large},
		{name: "compressed", path: "/gzip", args: []string{"--compressed"}, body: []byte("compressed by the app\n")},
		{name: "compressed, as it is", path: "/gzip", args: []string{"-H", "Accept-Encoding: gzip"}},
		{name: "never compressed unasked", path: "/gzip", body: []byte("not asked to compress")},
		{name: "odd path", path: "//a/%2F/../b;c?d;e=%41&f=|^", args: []string{"--path-as-is", "-g"}},
		{name: "own method", path: "/x", args: []string{"-X", "PURGE"}},
		{name: "options of all", path: "/", args: []string{"-X", "OPTIONS", "--request-target", "*"}},
		{name: "upload", path: "/echo", args: []string{"-T", upload}},
		{name: "upload when told to continue", path: "/echo", args: []string{"-T", upload, "-H", "Expect: 100-continue", "--expect100-timeout", "60"}},
		{name: "upload refused before it began", path: "/refuse", args: []string{"-T", upload, "-H", "Expect: 100-continue", "--expect100-timeout", "60", "-w", "sent %{size_upload}"}},
		{name: "chunked upload", path: "/echo", args: []string{"-T", "-"}, stdin: noise(2<<20, 3)},
		{name: "HTTP 2 upload", path: "/echo", args: []string{"--http2-prior-knowledge", "-T", upload}},
	} {
		t.Run(one.name, func(t *testing.T) {
			args := append([]string{"-D", "-", "-o", "body"}, one.args...)
			get := func(base string) (head string, body []byte) {
				cmd := c.command(t, base, append(args, base+one.path)...)
				cmd.Stdin = bytes.NewReader(one.stdin)
				head = sortFields(mustRun(t, cmd))
				body, _ = os.ReadFile(filepath.Join(c.dir, "body"))
				os.Remove(filepath.Join(c.dir, "body"))
				return head, body
			}
			wantHead, wantBody := get(direct)
			if one.body != nil && !bytes.Equal(wantBody, one.body) {
				t.Fatalf("called directly: %d bytes %.200q", len(wantBody), wantBody)
			}
			for transport, public := range tunnels {
				head, body := get(public)
				if head != wantHead {
					t.Errorf("header over %s:\n%s\ndirectly:\n%s", transport, head, wantHead)
				}
				if !bytes.Equal(body, wantBody) {
					t.Errorf("body over %s: %d bytes %.500q\ndirectly: %d bytes %.500q", transport, len(body), body, len(wantBody), wantBody)
				}
			}
		})
	}
}

// sortFields sorts the fields of each header section by name.
func sortFields(heads string) string {
	sections := strings.Split(heads, "\r\n\r\n")
	for i, section := range sections {
		lines := strings.Split(section, "\r\n")
		slices.SortStableFunc(lines[1:], func(a, b string) int {
			a, _, _ = strings.Cut(a, ":")
			b, _, _ = strings.Cut(b, ":")
			return strings.Compare(a, b)
		})
		sections[i] = strings.Join(lines, "\r\n")
	}
	return strings.Join(sections, "\r\n\r\n")
}

// TestCurlResume goes on with a download that broke off.
func TestCurlResume(t *testing.T) {
	c := curl{path: need(t, "curl", "curl"), dir: t.TempDir()}
	large := noise(4<<20, 4)
	var ranges []string
	public := expose(t, app(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ranges = append(ranges, r.Header.Get("Range"))
		http.ServeContent(w, r, "large.bin", time.Unix(1e9, 0), bytes.NewReader(large))
	})), "auto")
	file := filepath.Join(c.dir, "large.bin")
	if err := os.WriteFile(file, large[:1<<20], 0o600); err != nil {
		t.Fatal(err)
	}
	mustRun(t, c.command(t, public, "-C", "-", "-o", file, public+"/large.bin"))
	if got, want := fmt.Sprint(ranges), "[bytes=1048576-]"; got != want {
		t.Errorf("the app was asked for %s, want %s", got, want)
	}
	if fileSum(t, file) != sum(large) {
		t.Error("the resumed file is not the app's")
	}
}

// TestWebDAV moves a file: its Destination is a URL of the public host, which
// a server takes only where it is its own.
func TestWebDAV(t *testing.T) {
	c := curl{path: need(t, "curl", "curl"), dir: t.TempDir()}
	public := expose(t, app(t, &webdav.Handler{FileSystem: webdav.NewMemFS(), LockSystem: webdav.NewMemLS()}), "auto")
	file := filepath.Join(c.dir, "file")
	writeFile(t, file, "content")
	for _, step := range []struct {
		want string
		args []string
	}{
		{"201", []string{"-X", "MKCOL", public + "/folder"}},
		{"201", []string{"-T", file, public + "/one"}},
		{"201", []string{"-X", "COPY", "-H", "Destination: " + public + "/two", public + "/one"}},
		{"201", []string{"-X", "MOVE", "-H", "Destination: " + public + "/folder/three", public + "/two"}},
		{"404", []string{public + "/two"}},
		{"200", []string{public + "/folder/three"}},
		{"207", []string{"-X", "PROPFIND", "-H", "Depth: 1", public + "/folder/"}},
	} {
		got := mustRun(t, c.command(t, public, append([]string{"-o", "answer", "-w", "%{http_code}"}, step.args...)...))
		if got != step.want {
			t.Errorf("%q: status %s, want %s", step.args, got, step.want)
		}
	}
	if answer, _ := os.ReadFile(filepath.Join(c.dir, "answer")); !strings.Contains(string(answer), "/folder/three") {
		t.Errorf("PROPFIND shows no /folder/three: %s", answer)
	}
}
