// Package inspect keeps what passes through the client, for the developer to look at.
//
// A [Recorder] stands before the handler that calls the local app. What it sees goes into
// a [Store], which holds the newest requests within a bound. A [Server] shows the store on
// a page of this machine and by an API, and has requests replayed.
//
// A Recorder changes and delays nothing: it copies bytes that pass anyway, up to a bound,
// and looks into them (content codings, JSON, compressed WebSocket messages) when somebody
// asks for them.
package inspect

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// DefaultBody is how much of a body is kept, in bytes.
	DefaultBody = 1 << 20
	// DefaultTotal bounds all that is kept, in bytes.
	DefaultTotal = 50 << 20
	// maxRecords bounds how many requests are kept.
	maxRecords = 10_000
	// overhead is what a record takes beside what it keeps of the request, in bytes.
	overhead = 1 << 10
)

// Store holds the newest requests. Its zero value is ready for use; it is not to be copied.
type Store struct {
	// MaxBody is how much is kept of each body, and of the messages of a connection,
	// in bytes. Default [DefaultBody].
	MaxBody int
	// MaxTotal bounds all of it, in bytes: the oldest requests are given up. Default
	// [DefaultTotal].
	MaxTotal int64

	size atomic.Int64 // bytes that are kept

	mu        sync.Mutex           // guards the following; a record's mu is taken after it
	last      int64                // id of the newest
	records   []*record            // oldest first
	recorders map[string]*Recorder // by endpoint, the newest: replays go there
	watchers  []*watcher
	watched   atomic.Bool // there are watchers
}

func (s *Store) maxBody() int {
	if s.MaxBody > 0 {
		return s.MaxBody
	}
	return DefaultBody
}

func (s *Store) maxTotal() int64 {
	if s.MaxTotal > 0 {
		return s.MaxTotal
	}
	return DefaultTotal
}

// add gives rec its id and takes it in.
func (s *Store) add(rec *record) {
	rec.store = s
	s.mu.Lock()
	s.last++
	rec.id = s.last
	s.records = append(s.records, rec)
	s.size.Add(rec.size)
	s.trim()
	s.mu.Unlock()
	s.changed(rec)
}

// trim gives the oldest up until the rest is within the bounds. s.mu is held.
func (s *Store) trim() {
	n := 0
	for len(s.records)-n > maxRecords || s.size.Load() > s.maxTotal() && n < len(s.records) {
		s.giveUp(s.records[n])
		s.records[n] = nil
		n++
	}
	s.records = s.records[n:]
}

// giveUp lets nothing keep rec any more, nor a watcher that nobody reads from. s.mu is held.
func (s *Store) giveUp(rec *record) {
	rec.forget()
	for _, w := range s.watchers {
		delete(w.dirty, rec)
	}
}

// tooMuch is called when a record has grown.
func (s *Store) tooMuch() {
	if s.size.Load() <= s.maxTotal() {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.trim()
}

// Clear gives all requests up. Those under way are not seen any more.
func (s *Store) Clear() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, rec := range s.records {
		s.giveUp(rec)
	}
	s.records = nil
	for _, w := range s.watchers {
		w.notify(nil)
	}
}

// all returns the records, oldest first.
func (s *Store) all() []*record {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.records)
}

// find returns the record of that id, or nil.
func (s *Store) find(id int64) *record {
	s.mu.Lock()
	defer s.mu.Unlock()
	i, ok := slices.BinarySearchFunc(s.records, id, func(rec *record, id int64) int { return int(rec.id - id) })
	if !ok {
		return nil
	}
	return s.records[i]
}

// oldest is the least id that is kept, or the one that the next request gets.
func (s *Store) oldest() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.records) == 0 {
		return s.last + 1
	}
	return s.records[0].id
}

// watcher collects which records have changed, until somebody takes them.
type watcher struct {
	store *Store
	wake  chan struct{}
	dirty map[*record]bool // guarded by the store's mu
}

// watch returns a watcher to which all records are new. stop ends it.
func (s *Store) watch() (w *watcher, stop func()) {
	w = &watcher{store: s, wake: make(chan struct{}, 1), dirty: make(map[*record]bool)}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, rec := range s.records {
		w.dirty[rec] = true
	}
	w.notify(nil)
	s.watchers = append(s.watchers, w)
	s.watched.Store(true)
	return w, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.watchers = slices.DeleteFunc(s.watchers, func(one *watcher) bool { return one == w })
		s.watched.Store(len(s.watchers) > 0)
	}
}

// notify wakes who waits. The store's mu is held.
func (w *watcher) notify(rec *record) {
	if rec != nil {
		w.dirty[rec] = true
	}
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// take returns the records that have changed since it was called last, oldest first.
func (w *watcher) take() []*record {
	w.store.mu.Lock()
	defer w.store.mu.Unlock()
	all := make([]*record, 0, len(w.dirty))
	for rec := range w.dirty {
		all = append(all, rec)
	}
	clear(w.dirty)
	slices.SortFunc(all, func(a, b *record) int { return int(a.id - b.id) })
	return all
}

// changed tells the watchers of rec.
func (s *Store) changed(rec *record) {
	if !s.watched.Load() {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.records) == 0 || rec.id < s.records[0].id {
		rec = nil // it was given up, and is not to be kept by those who watch
	}
	for _, w := range s.watchers {
		w.notify(rec)
	}
}

// Record returns a handler that records what next is asked and answers. endpoint is the
// name under which that comes, where a store is of several; it may be "". From now on the
// endpoint's requests are replayed by next, those that were recorded before as well.
func (s *Store) Record(endpoint string, next http.Handler) *Recorder {
	r := &Recorder{store: s, endpoint: endpoint, next: next}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.recorders == nil {
		s.recorders = make(map[string]*Recorder)
	}
	s.recorders[endpoint] = r
	return r
}

// Leave says that there is no such endpoint any more: what was recorded of it stays, but is
// not replayed before Record is called for it again.
func (s *Store) Leave(endpoint string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.recorders, endpoint)
}

// recorder returns the one that rec is replayed by. An imported request that names no
// endpoint, or comes where endpoints have no names, is for the only one that there is.
func (s *Store) recorder(rec *record) (*Recorder, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r := s.recorders[rec.endpoint]; r != nil {
		return r, nil
	}
	if rec.imported && len(s.recorders) == 1 {
		for name, r := range s.recorders {
			if name == "" || rec.endpoint == "" {
				return r, nil
			}
		}
	}
	switch {
	case rec.endpoint != "":
		return nil, fmt.Errorf("endpoint %s is not there, or not recorded, any more: its requests cannot be replayed", rec.endpoint)
	case len(s.recorders) > 1:
		return nil, errors.New("the HAR does not say, by _endpoint, which of the endpoints the request is for")
	}
	return nil, errors.New("there is no tunnel that an imported request could be replayed by")
}

// Recorder is a handler that records. Make it with [Store.Record].
type Recorder struct {
	store    *Store
	endpoint string
	next     http.Handler
}

// ServeHTTP is that of the handler that was given, and panics where it does. The request's
// Body is replaced.
func (r *Recorder) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	r.serve(w, req, newRecord(req, time.Now()))
}

// serve is ServeHTTP with the record that it fills.
func (r *Recorder) serve(w http.ResponseWriter, req *http.Request, rec *record) {
	rec.endpoint = r.endpoint
	r.store.add(rec)
	a := &answer{ResponseWriter: w, rec: rec, head: req.Method == http.MethodHead}
	if req.Body != nil && req.Body != http.NoBody {
		req.Body = &upload{ReadCloser: req.Body, rec: rec}
	}
	whole := false
	defer func() { rec.end(a.Header(), whole) }()
	r.next.ServeHTTP(a, req)
	whole = true
}
