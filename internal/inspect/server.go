package inspect

import (
	"crypto/rand"
	"embed"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"path"
	"strconv"
	"strings"
	"sync"
	"time"
)

//go:embed page
var pageFiles embed.FS

// tryPorts is how many ports are tried where the first ones are taken.
const tryPorts = 100

// Server shows a Store on a page, and by an API. Make it with [Listen].
type Server struct {
	store   *Store
	most    int64 // what all of one export is decoded to, in bytes
	log     *slog.Logger
	token   string
	host    string // a name that the user listens at; "": none
	ln      net.Listener
	server  *http.Server
	serving sync.WaitGroup
	ending  chan struct{} // closed when streams are to end
	end     sync.Once
}

// Listen serves store at addr, HOST:PORT, or, where that port is taken, at one of the
// next hundred. Log gets what goes wrong later; nil discards.
func Listen(store *Store, addr string, log *slog.Logger) (*Server, error) {
	host, port, err := net.SplitHostPort(addr)
	first, bad := strconv.Atoi(port)
	if err != nil || bad != nil || first < 0 || first > 65535 {
		return nil, fmt.Errorf("%q is not an address: use 127.0.0.1:4040", addr)
	}
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	s := &Server{store: store, most: maxExported, log: log, token: rand.Text(), ending: make(chan struct{})}
	if host != "" && net.ParseIP(host) == nil {
		s.host = strings.ToLower(host)
	}
	for p := first; p < first+tryPorts && p <= 65535; p++ {
		var taken error
		if s.ln, taken = net.Listen("tcp", net.JoinHostPort(host, strconv.Itoa(p))); taken == nil {
			err = nil
			break
		}
		if err == nil {
			err = taken
		}
	}
	if err != nil {
		return nil, err
	}
	s.server = &http.Server{Handler: s.guard(s.routes()), ReadHeaderTimeout: 10 * time.Second, ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug)}
	s.serving.Go(func() { s.server.Serve(s.ln) })
	return s, nil
}

// URL is where the page is.
func (s *Server) URL() string {
	host, port, _ := net.SplitHostPort(s.ln.Addr().String())
	if ip := net.ParseIP(host); ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	return "http://" + net.JoinHostPort(host, port)
}

// Close ends it, with all that is under way.
func (s *Server) Close() {
	s.end.Do(func() { close(s.ending) })
	s.server.Close()
	s.serving.Wait()
}

func (s *Server) routes() http.Handler {
	files, err := fs.Sub(pageFiles, "page")
	if err != nil {
		panic(err) // the folder is embedded
	}
	m := http.NewServeMux()
	m.Handle("GET /", typed(http.FileServerFS(files)))
	m.HandleFunc("GET /api/session", func(w http.ResponseWriter, r *http.Request) { send(w, http.StatusOK, s.about()) })
	m.HandleFunc("GET /api/requests", s.list)
	m.HandleFunc("DELETE /api/requests", s.clear)
	m.HandleFunc("GET /api/requests/{id}", s.detail)
	m.HandleFunc("POST /api/requests/{id}/replay", s.replay)
	m.HandleFunc("GET /api/live", s.live)
	m.HandleFunc("GET /api/har", s.exportHAR)
	m.HandleFunc("POST /api/har", s.importHAR)
	return m
}

// typed says what the page's files are: what the system has to say of that, Windows
// most of all, may keep a browser from running them.
func typed(files http.Handler) http.Handler {
	types := map[string]string{".js": "text/javascript; charset=utf-8", ".css": "text/css; charset=utf-8", ".svg": "image/svg+xml"}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if kind, ok := types[path.Ext(r.URL.Path)]; ok {
			w.Header().Set("Content-Type", kind)
		}
		files.ServeHTTP(w, r)
	})
}
