package inspect

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"time"
)

// liveEvery is how often a live stream has something at most.
const liveEvery = 100 * time.Millisecond

// liveBatch is how many requests an event of a live stream tells of at most.
const liveBatch = 500

// liveWrite is how long what a live stream has may take to be read.
const liveWrite = 30 * time.Second

// failure is the API's answer where there is no other.
type failure struct {
	Error string `json:"error"`
}

func refuse(w http.ResponseWriter, status int, why string) { send(w, status, failure{why}) }

func send(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(v) // who has gone needs nothing
}

// session is what the page has to know, with the token, which other origins cannot read.
type session struct {
	Token     string `json:"token"`
	Mask      string `json:"mask"`
	BodyLimit int    `json:"body_limit"` // in bytes
}

func (s *Server) about() session { return session{s.token, Mask, s.store.maxBody()} }

// Requests is the answer to GET /api/requests.
type Requests struct {
	Requests  []Summary `json:"requests"`  // oldest first
	Endpoints []string  `json:"endpoints"` // by name, those of which requests are kept
}

func (s *Server) list(w http.ResponseWriter, r *http.Request) {
	f, err := parseFilter(r.URL.Query())
	if err != nil {
		refuse(w, http.StatusBadRequest, err.Error())
		return
	}
	all := s.store.all()
	send(w, http.StatusOK, Requests{f.choose(r.Context(), all), endpointsOf(all)})
}

func endpointsOf(records []*record) []string {
	names := make(map[string]bool)
	for _, rec := range records {
		if rec.endpoint != "" {
			names[rec.endpoint] = true
		}
	}
	return append([]string{}, slices.Sorted(maps.Keys(names))...)
}

func (s *Server) clear(w http.ResponseWriter, r *http.Request) {
	s.store.Clear()
	w.WriteHeader(http.StatusNoContent)
}

// find returns the request that the path names, or answers.
func (s *Server) find(w http.ResponseWriter, r *http.Request) *record {
	id, err := strconv.ParseInt(r.PathValue("id"), 10, 64)
	rec := s.store.find(id)
	switch {
	case err != nil || id < 1:
		refuse(w, http.StatusNotFound, strconv.Quote(r.PathValue("id"))+" is no id of a request: that is a number, such as 17")
	case rec == nil && id >= s.store.oldest():
		refuse(w, http.StatusNotFound, "there is no request "+r.PathValue("id")+" so far")
	case rec == nil:
		refuse(w, http.StatusNotFound, "request "+r.PathValue("id")+" is not kept any more: it was cleared, or given up for newer ones")
	}
	return rec
}

// reveals reports whether secrets are to be shown, or answers that they are not.
func (s *Server) reveals(w http.ResponseWriter, r *http.Request) (reveal, ok bool) {
	reveal = r.URL.Query().Get("reveal") == "true"
	if reveal && !s.hasToken(r) {
		refuse(w, http.StatusForbidden, "secrets are shown with the "+HeaderToken+" of GET /api/session")
		return false, false
	}
	return reveal, true
}

func (s *Server) detail(w http.ResponseWriter, r *http.Request) {
	rec := s.find(w, r)
	if rec == nil {
		return
	}
	if reveal, ok := s.reveals(w, r); ok {
		after, _ := strconv.Atoi(r.URL.Query().Get("after"))
		send(w, http.StatusOK, rec.show(reveal, after))
	}
}

// change is an event of the live stream.
type change struct {
	Requests []Summary `json:"requests"` // new, or changed
	Oldest   int64     `json:"oldest"`   // those before it are gone
}

// live is a stream of server-sent events: first the session and all requests, then each change.
func (s *Server) live(w http.ResponseWriter, r *http.Request) {
	watcher, stop := s.store.watch()
	defer stop()
	w.Header().Set("Content-Type", "text/event-stream")
	http.NewResponseController(w).SetWriteDeadline(time.Now().Add(liveWrite))
	begun, err := json.Marshal(s.about())
	if err != nil {
		panic(err) // it has nothing that JSON lacks
	}
	fmt.Fprintf(w, "event: begin\ndata: %s\n\n", begun)
	for {
		select {
		case <-watcher.wake:
		case <-r.Context().Done():
			return
		case <-s.ending:
			return
		}
		if s.tell(w, watcher.take()) != nil {
			return
		}
		select {
		case <-time.After(liveEvery):
		case <-r.Context().Done():
		}
	}
}

// tell sends what has changed.
func (s *Server) tell(w http.ResponseWriter, records []*record) error {
	control := http.NewResponseController(w)
	for first := true; first || len(records) > 0; first = false {
		n := min(len(records), liveBatch)
		c := change{Requests: make([]Summary, 0, n), Oldest: s.store.oldest()}
		for _, rec := range records[:n] {
			if one := rec.summary(); rec.id >= c.Oldest && one.Path != "" { // "": given up since
				c.Requests = append(c.Requests, one)
			}
		}
		records = records[n:]
		data, err := json.Marshal(c)
		if err != nil {
			return err
		}
		// One that reads no more keeps what it was to be told in memory.
		control.SetWriteDeadline(time.Now().Add(liveWrite))
		if _, err := w.Write([]byte("data: " + string(data) + "\n\n")); err != nil {
			return err
		}
	}
	return control.Flush()
}
