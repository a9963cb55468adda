package files

import (
	"bytes"
	_ "embed"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

//go:embed pages.html
var pagesHTML string

// maxListed is how many entries of a folder are shown, so that one with a million does
// not fill the memory.
const maxListed = 10_000

// listing is what the page shows of a folder.
type listing struct {
	Path    string
	Above   []crumb // the folders that it is in
	Here    string
	Entries []entry
	Cut     int // how many are shown where there are more; 0: all
}

// crumb is a folder on the way.
type crumb struct{ Name, Href string }

// entry is a file or folder in the list.
type entry struct {
	Name, Href  string
	Folder      bool
	Size, Bytes string
	Time, Date  string
}

// list answers with a folder's list.
func (a *answer) list(at place) {
	entries, more, err := a.read(at.name)
	if err != nil {
		if a.missing(err) {
			a.notFound()
		} else {
			a.refuse(err)
		}
		return
	}
	l := listing{Path: "/", Here: "/", Entries: entries}
	if more {
		l.Cut = a.most
	}
	if at.name != "." {
		names := strings.Split(at.name, "/")
		l.Path, l.Here = "/"+at.name+"/", names[len(names)-1]
		for i, name := range append([]string{"Top"}, names[:len(names)-1]...) {
			l.Above = append(l.Above, crumb{Name: name, Href: strings.Repeat("../", len(names)-i)})
		}
	}
	a.w.Header().Set("Cache-Control", "no-cache")
	a.page(http.StatusOK, "list", l)
}

// read returns what is in a folder and is served: folders first, by name. more says
// that there is more than is shown.
func (a *answer) read(name string) (all []entry, more bool, err error) {
	// Entries are looked at by way of the folder that was opened. Their own FileInfo is by
	// path, which may lead elsewhere by now.
	folder, err := a.root.OpenRoot(filepath.FromSlash(name))
	if err != nil {
		return nil, false, err
	}
	defer folder.Close()
	f, err := folder.Open(".")
	if err != nil {
		return nil, false, err
	}
	defer f.Close()
	found, err := f.ReadDir(a.most + 1)
	if err != nil && len(found) == 0 && err != io.EOF {
		return nil, false, err
	}
	if more = len(found) > a.most; more {
		found = found[:a.most]
	}
	for _, one := range found {
		if !a.serves(one.Name(), name == ".") {
			continue
		}
		if info, ok := a.look(folder, name, one.Name()); ok {
			all = append(all, newEntry(one.Name(), info))
		}
	}
	slices.SortFunc(all, compare)
	return all, more, nil
}

// look returns what is known of an entry of a folder: not where it could not be had.
func (a *answer) look(folder *os.Root, in, name string) (fs.FileInfo, bool) {
	info, err := folder.Lstat(name)
	if err == nil && info.Mode()&fs.ModeSymlink != 0 {
		info, err = a.root.Stat(filepath.FromSlash(path.Join(in, name))) // it may leave the folder, but not the root
	}
	return info, err == nil && (info.IsDir() || info.Mode().IsRegular())
}

func newEntry(name string, info fs.FileInfo) entry {
	t := info.ModTime().UTC()
	e := entry{Name: name, Href: "./" + escape(name), Time: t.Format(time.RFC3339), Date: t.Format("2006-01-02 15:04")}
	if e.Folder = info.IsDir(); e.Folder {
		e.Name, e.Href = e.Name+"/", e.Href+"/"
		return e
	}
	e.Size, e.Bytes = size(info.Size()), strconv.FormatInt(info.Size(), 10)
	return e
}

// compare sorts folders before files, and both as people look for them.
func compare(a, b entry) int {
	switch {
	case a.Folder && !b.Folder:
		return -1
	case b.Folder && !a.Folder:
		return 1
	}
	if c := strings.Compare(strings.ToLower(a.Name), strings.ToLower(b.Name)); c != 0 {
		return c
	}
	return strings.Compare(a.Name, b.Name)
}

// size is a number of bytes for people.
func size(n int64) string {
	if n < 1000 {
		return strconv.FormatInt(n, 10) + " B"
	}
	f, unit := float64(n)/1000, 0
	for ; f >= 999.95 && unit < 5; unit++ {
		f /= 1000
	}
	return fmt.Sprintf("%.1f %cB", f, "kMGTPE"[unit])
}

// page answers with one of pages.html. It holds names that strangers may have chosen, so
// it may do nothing but show.
func (a *answer) page(status int, name string, data any) {
	var b bytes.Buffer
	if err := a.pages.ExecuteTemplate(&b, name, data); err != nil {
		a.o.Log.Error("page not made", "err", err)
		panic(http.ErrAbortHandler)
	}
	a.w.Header().Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'")
	a.write(status, "text/html; charset=utf-8", b.Bytes())
}

// write answers with a body that is there.
func (a *answer) write(status int, contentType string, body []byte) {
	h := a.w.Header()
	h.Set("Content-Type", contentType)
	h.Set("Content-Length", strconv.Itoa(len(body)))
	a.w.WriteHeader(status)
	if a.r.Method != http.MethodHead {
		a.w.Write(body) // nobody is told where the visitor has gone
	}
}
