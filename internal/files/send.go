package files

import (
	"io"
	"io/fs"
	"mime"
	"net/http"
	"os"
	"path"
	"strconv"
	"strings"
	"time"
)

// settled is how long a file must have been left alone for its times to tell its content:
// the clocks of file systems tick at 2 s at the slowest (FAT).
const settled = 2 * time.Second

// send answers with a file, or with parts of it, or says that the visitor has it
// (RFC 9110, sections 13 and 14).
func (a *answer) send(name string, f *os.File, info fs.FileInfo) {
	a.root.Close() // lest a slow visitor holds it, too
	h := a.w.Header()
	h.Set("Cache-Control", "no-cache") // it is kept, and asked for whether it has changed
	if t := contentType(name); t != "" {
		h.Set("Content-Type", t)
	}
	tag, modified := a.validators(info)
	if tag != "" {
		h.Set("Etag", tag)
	}
	w := &whole{ResponseWriter: a.w, f: f, before: info}
	// The size is the one that the validators are of, whatever the file has become since.
	http.ServeContent(w, a.r, name, modified, io.NewSectionReader(f, 0, info.Size()))
	switch {
	case a.r.Method == http.MethodHead || w.left <= 0:
	case w.gone:
		panic(http.ErrAbortHandler)
	default:
		a.o.Log.Warn("answer cut off: the file changed while it was sent", "path", a.r.URL.EscapedPath())
		panic(http.ErrAbortHandler)
	}
}

// validators returns the ETag of a file and the time of its last change, or nothing
// where it may change again and neither tell. The tag is strong where the system has a
// time of change that nobody can set; otherwise a file may have been replaced by one of
// the same size and time, and it is weak.
func (h *Handler) validators(info fs.FileInfo) (tag string, modified time.Time) {
	changed, known := changeTime(info)
	if !known {
		changed = info.ModTime()
	}
	if now := h.now(); now.Sub(changed) < settled || now.Before(info.ModTime()) {
		return "", time.Time{}
	}
	number := func(n int64) string { return strconv.FormatUint(uint64(n), 36) }
	tag = `"` + number(info.ModTime().UnixNano()) + "-" + number(changed.UnixNano()) + "-" + number(info.Size()) + `"`
	if !known {
		tag = "W/" + tag
	}
	return tag, info.ModTime()
}

// whole lets an answer's last bytes pass only where it is what it was begun as.
type whole struct {
	http.ResponseWriter
	f      *os.File
	before fs.FileInfo
	left   int64 // bytes that are to come of the file; below 0: it is another body
	gone   bool  // the visitor
	torn   bool  // the file
}

// WriteHeader notes how long the body is to be.
func (w *whole) WriteHeader(status int) {
	if status == http.StatusOK || status == http.StatusPartialContent {
		w.left, _ = strconv.ParseInt(w.Header().Get("Content-Length"), 10, 64)
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *whole) Write(p []byte) (int, error) {
	if w.torn = w.torn || w.left > 0 && int64(len(p)) >= w.left && w.changed(); w.torn {
		return 0, io.ErrUnexpectedEOF
	}
	n, err := w.ResponseWriter.Write(p)
	w.left -= int64(n)
	w.gone = w.gone || err != nil
	return n, err
}

// changed reports whether the file is another than it was. What was only added to, as
// logs are, has the beginning that it had.
func (w *whole) changed() bool {
	after, err := w.f.Stat()
	return err != nil || !after.ModTime().Equal(w.before.ModTime()) && after.Size() <= w.before.Size()
}

// contentType is the type of a file by its extension, or "" where its content is to tell.
// Those of the web are told here: systems have tables of their own, and some are wrong.
func contentType(name string) string {
	switch ext := strings.ToLower(path.Ext(name)); ext {
	case ".html", ".htm":
		return "text/html; charset=utf-8"
	case ".js", ".mjs", ".cjs":
		return "text/javascript; charset=utf-8"
	case ".css":
		return "text/css; charset=utf-8"
	case ".json", ".map":
		return "application/json"
	case ".webmanifest":
		return "application/manifest+json"
	case ".wasm":
		return "application/wasm"
	case ".svg":
		return "image/svg+xml"
	case ".png":
		return "image/png"
	case ".jpg", ".jpeg":
		return "image/jpeg"
	case ".webp":
		return "image/webp"
	case ".avif":
		return "image/avif"
	case ".ico":
		return "image/x-icon"
	case ".woff2":
		return "font/woff2"
	case ".mp4":
		return "video/mp4"
	case ".webm":
		return "video/webm"
	case ".pdf":
		return "application/pdf"
	case ".txt", ".log", ".md", ".ts", ".tsx", ".jsx", ".go", ".py", ".rs", ".yaml", ".yml", ".toml", ".ini", ".sh":
		return "text/plain; charset=utf-8" // shown by all browsers
	case "":
		return ""
	default:
		return mime.TypeByExtension(ext)
	}
}
