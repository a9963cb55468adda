package inspect

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// named is an app that answers with its name, recorded as an endpoint.
func named(store *Store, endpoint, name string) *Recorder {
	return store.Record(endpoint, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, name) }))
}

func visit(r *Recorder, path string) {
	req := httptest.NewRequest("GET", "http://app.test"+path, nil)
	req.RequestURI = path
	r.ServeHTTP(httptest.NewRecorder(), req)
}

// answerTo replays a request, and returns what the app says, or why none was asked.
func answerTo(t *testing.T, s *Server, id int64) string {
	t.Helper()
	var answer struct {
		Replayed
		failure
	}
	status := call(t, s, "POST", fmt.Sprintf("/api/requests/%d/replay", id), "{}", &answer)
	if status != 200 {
		return fmt.Sprint(status, " ", answer.Error)
	}
	r := s.store.find(answer.ID).show(true, 0)
	return r.Endpoint + ": " + r.Response.Body.Text
}

// One store has the requests of several endpoints: it tells them apart, and replays each by
// the app that its endpoint leads to now.
func TestEndpoints(t *testing.T) {
	store := new(Store)
	s := listen(t, store)
	visit(named(store, "web", "the site"), "/one")
	visit(named(store, "api", "the API"), "/two")
	for query, want := range map[string]string{"": "web api", "endpoint=web": "web", "endpoint=api": "api", "endpoint=we": "", "endpoint=api&path=/one": ""} {
		var all Requests
		call(t, s, "GET", "/api/requests?"+query, "", &all)
		var got []string
		for _, r := range all.Requests {
			got = append(got, r.Endpoint)
		}
		if strings.Join(got, " ") != want || strings.Join(all.Endpoints, " ") != "api web" {
			t.Errorf("%q chooses %q of the endpoints %q, want %s", query, got, all.Endpoints, want)
		}
	}
	for id, want := range map[int64]string{1: "web: the site", 2: "api: the API"} {
		if got := answerTo(t, s, id); got != want {
			t.Errorf("request %d is replayed as %q, want %q", id, got, want)
		}
	}
	named(store, "web", "the new site")
	if got := answerTo(t, s, 1); got != "web: the new site" {
		t.Errorf("after a change the replay is %q", got)
	}
	store.Leave("web")
	if got := answerTo(t, s, 1); !strings.HasPrefix(got, "409 endpoint web is not there") {
		t.Errorf("without its endpoint the replay is %q", got)
	}
	if got := answerTo(t, s, 2); got != "api: the API" {
		t.Errorf("beside an endpoint that has left the replay is %q", got)
	}
}

// A HAR keeps the endpoint, and an import is replayed by that, or by the only one there is.
func TestEndpointsInHAR(t *testing.T) {
	from := new(Store)
	visit(named(from, "web", "the site"), "/one")
	var document json.RawMessage
	call(t, listen(t, from), "GET", "/api/har?endpoint=web", "", &document)
	checkHAR(t, document)
	unnamed := strings.Replace(string(document), `,"_endpoint":"web"`, "", 1)
	if len(unnamed) == len(document) {
		t.Fatalf("no endpoint is exported: %s", document)
	}
	for name, c := range map[string]struct {
		document  string
		endpoints []string
		want      string
	}{
		"its endpoint":             {string(document), []string{"api", "web"}, "web: the app of web"},
		"endpoints without a name": {string(document), []string{""}, ": the app of "},
		"another endpoint":         {string(document), []string{"api"}, "409 endpoint web is not there"},
		"the only endpoint":        {unnamed, []string{"api"}, "api: the app of api"},
		"which endpoint":           {unnamed, []string{"api", "web"}, "409 the HAR does not say"},
		"no endpoint":              {unnamed, nil, "409 there is no tunnel"},
	} {
		store := new(Store)
		for _, endpoint := range c.endpoints {
			named(store, endpoint, "the app of "+endpoint)
		}
		s := listen(t, store)
		var imported Imported
		call(t, s, "POST", "/api/har", c.document, &imported)
		if got := answerTo(t, s, imported.IDs[0]); !strings.HasPrefix(got, c.want) {
			t.Errorf("%s: the replay is %q, want %q", name, got, c.want)
		}
	}
}
