// Package files answers requests with the files of one folder, and with nothing that is
// not in it (S17).
//
// A request is a [Handler]'s in three steps: its path becomes names, each of which is one
// of a file or none (path.go); os.Root finds them, link by link, and refuses what leads
// outside; then a file is sent (send.go) or a folder listed (list.go).
package files

import (
	"cmp"
	"errors"
	"fmt"
	"html/template"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"
)

const index = "index.html"

// Options say what a Handler serves.
type Options struct {
	// Dir is the folder. It may be a link, and is looked up by its name for each request:
	// it may be removed and made again, as builds do.
	Dir string
	// SPA answers with the index.html of Dir where there is no file and the path has no
	// extension, as apps want it that have their routes in the browser. No folder is listed.
	SPA bool
	// Hidden serves and lists what begins with a dot, too. Without it the one such name
	// is .well-known, at the top (RFC 8615).
	Hidden bool
	// Log gets what could not be read, or led outside. Nil discards.
	Log *slog.Logger
}

// Handler serves a folder, for reading. Make it with [New].
type Handler struct {
	o       Options
	pages   *template.Template
	windows bool // which names are refused
	most    int  // of a folder's names that are listed
	now     func() time.Time
}

// New returns the handler for a folder. The error says why there will be nothing to
// serve: the folder is missing, is none, or has no index.html for SPA.
func New(o Options) (*Handler, error) {
	var err error
	if o.Dir, err = filepath.Abs(o.Dir); err != nil {
		return nil, fmt.Errorf("the folder cannot be found: %w", err)
	}
	if err := check(o.Dir); err != nil {
		return nil, err
	}
	if o.SPA {
		if info, err := os.Stat(filepath.Join(o.Dir, index)); err != nil || !info.Mode().IsRegular() {
			return nil, fmt.Errorf("%s has no %s for --spa to answer with: build the app first, or name the folder that it is built into", o.Dir, index)
		}
	}
	o.Log = cmp.Or(o.Log, slog.New(slog.DiscardHandler))
	pages, err := template.New("").Parse(pagesHTML)
	if err != nil {
		return nil, err
	}
	return &Handler{o: o, pages: pages, windows: runtime.GOOS == "windows", most: maxListed, now: time.Now}, nil
}

// check reports what is wrong with dir.
func check(dir string) error {
	info, err := os.Stat(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%s does not exist: name a folder", dir)
	case err != nil:
		return fmt.Errorf("the folder cannot be read: %w", err)
	case !info.IsDir():
		return fmt.Errorf("%s is a file: name the folder that it is in, %s", dir, filepath.Dir(dir))
	}
	f, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("the folder cannot be read: %w", err)
	}
	return f.Close()
}

// Dir is the folder's absolute path.
func (h *Handler) Dir() string { return h.o.Dir }

// ServeHTTP answers one request. An answer that was begun and cannot be ended as it was
// begun, because the file was cut meanwhile, panics with http.ErrAbortHandler, so that it
// does not look whole (R1).
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	a := &answer{Handler: h, w: w, r: r}
	w.Header().Set("Date", h.now().UTC().Format(http.TimeFormat)) // RFC 9110, section 6.6.1
	w.Header().Set("X-Content-Type-Options", "nosniff")
	const allowed = "GET, HEAD, OPTIONS"
	switch r.Method {
	case http.MethodGet, http.MethodHead:
		a.serve()
	case http.MethodOptions:
		w.Header().Set("Allow", allowed)
		w.WriteHeader(http.StatusNoContent)
	default:
		w.Header().Set("Allow", allowed)
		a.fail(http.StatusMethodNotAllowed, "What is here can be read, and not changed.")
	}
}

// answer is a request with what it takes to answer it.
type answer struct {
	*Handler
	w    http.ResponseWriter
	r    *http.Request
	root *os.Root
}

func (a *answer) serve() {
	at, ok := a.locate(a.r.URL.EscapedPath())
	if !ok {
		a.notFound()
		return
	}
	root, err := os.OpenRoot(a.o.Dir)
	if err != nil {
		a.o.Log.Warn("the folder cannot be opened", "dir", a.o.Dir, "err", err)
		a.fail(http.StatusServiceUnavailable, "The folder cannot be read at the moment.")
		return
	}
	defer root.Close()
	a.root = root
	info, err := root.Stat(filepath.FromSlash(at.name))
	switch {
	case err != nil && !a.missing(err):
		a.refuse(err)
	case err == nil && info.IsDir():
		a.folder(at)
	case err != nil || at.slash: // a file is no folder
		a.elsewhere(at)
	default:
		a.file(at)
	}
}

// file answers with the file at the place.
func (a *answer) file(at place) {
	f, info, err := a.open(at.name)
	switch {
	case err == nil:
		defer f.Close()
		a.send(at.name, f, info)
	case a.missing(err):
		a.elsewhere(at)
	default:
		a.refuse(err)
	}
}

// folder answers for a folder, by its index.html or its list. Both are for a path that
// ends in a slash: the links in them are relative to it.
func (a *answer) folder(at place) {
	name := path.Join(at.name, index)
	f, info, err := a.open(name)
	switch {
	case err == nil:
		defer f.Close()
		if !at.slash {
			a.redirect(at)
			return
		}
		a.send(name, f, info)
	case !a.missing(err):
		a.refuse(err)
	case a.o.SPA:
		a.app()
	case !at.slash:
		a.redirect(at)
	default:
		a.list(at)
	}
}

// elsewhere answers where there is nothing to be had.
func (a *answer) elsewhere(at place) {
	if a.o.SPA && path.Ext(at.name) == "" {
		a.app()
		return
	}
	a.notFound()
}

// app answers with the page of an app that finds its routes itself.
func (a *answer) app() {
	f, info, err := a.open(index)
	switch {
	case err == nil:
		defer f.Close()
		a.send(index, f, info)
	case a.missing(err):
		a.notFound()
	default:
		a.refuse(err)
	}
}

// open opens a file, of which there is none where name is anything else, such as a
// pipe: to open that for reading already means something to who writes to it, so it is
// looked at before.
func (a *answer) open(name string) (*os.File, fs.FileInfo, error) {
	name = filepath.FromSlash(name)
	info, err := a.root.Stat(name)
	if err != nil {
		return nil, nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, nil, fs.ErrNotExist
	}
	f, err := a.root.OpenFile(name, os.O_RDONLY|nonblock, 0)
	if err != nil {
		return nil, nil, err
	}
	if info, err = f.Stat(); err == nil && !info.Mode().IsRegular() {
		err = fs.ErrNotExist // it was replaced
	}
	if err != nil {
		f.Close()
		return nil, nil, err
	}
	return f, info, nil
}

// missing reports whether err is of a name that leads to nothing, or to nothing inside.
func (a *answer) missing(err error) bool {
	for _, nothing := range []error{fs.ErrNotExist, syscall.ENOTDIR, syscall.ENAMETOOLONG, syscall.ELOOP} {
		if errors.Is(err, nothing) {
			return true
		}
	}
	if _, ok := errors.AsType[syscall.Errno](err); ok {
		return false
	}
	// What is not the system's error is os.Root's own.
	a.o.Log.Warn("refused: a link leads outside the folder, or is an absolute one", "path", a.r.URL.EscapedPath(), "err", err)
	return true
}

// redirect asks for the same place with a slash. The reference is relative, so that it
// holds below a prefix, and leads to no other host.
func (a *answer) redirect(at place) {
	to := "./" + escape(path.Base(at.name)) + "/"
	if a.r.URL.RawQuery != "" {
		to += "?" + a.r.URL.RawQuery
	}
	// Not a permanent one: what is a folder today may be a file tomorrow.
	h := a.w.Header()
	h.Set("Location", to)
	h.Set("Content-Length", "0")
	a.w.WriteHeader(http.StatusFound)
}

func (a *answer) notFound() { a.fail(http.StatusNotFound, "There is no such file here.") }

// refuse answers where there is something that cannot be read.
func (a *answer) refuse(err error) {
	a.o.Log.Warn("a file cannot be read", "path", a.r.URL.EscapedPath(), "err", err)
	if errors.Is(err, fs.ErrPermission) {
		a.fail(http.StatusForbidden, "This may not be read.")
		return
	}
	a.fail(http.StatusInternalServerError, "This cannot be read.")
}

// fail answers with a short page, or a line where no page is asked for.
func (a *answer) fail(status int, cause string) {
	if !strings.Contains(a.r.Header.Get("Accept"), "text/html") {
		a.write(status, "text/plain; charset=utf-8", []byte(cause+"\n"))
		return
	}
	a.page(status, "error", struct {
		Status       int
		Title, Cause string
	}{status, http.StatusText(status), cause})
}
