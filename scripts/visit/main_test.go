package main

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestVisit(t *testing.T) {
	tests := []struct {
		name    string
		handler http.HandlerFunc
		want    []string // parts of what is shown
		wantErr string
	}{
		{"an answer of the app", func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(http.StatusNotFound)
			io.WriteString(w, "host "+r.Host+"\n")
		}, []string{"GET http://calm-otter.localhost:", "HTTP/1.1 404 Not Found\n", "\nhost calm-otter.localhost:"}, ""},
		{"a redirect is shown, not followed", func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "/login", http.StatusFound)
		}, []string{"302 Found", "Location: /login"}, ""},
		{"an error of the tunnel", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Tunnel-Error", "app_refused")
			w.WriteHeader(http.StatusBadGateway)
		}, []string{"502 Bad Gateway", "Tunnel-Error: app_refused"}, "app_refused"},
		{"a long answer", func(w http.ResponseWriter, r *http.Request) {
			io.WriteString(w, strings.Repeat("x\n", maxLines)+"unseen\n"+strings.Repeat("y", 1<<20))
		}, []string{"x\n...\n"}, ""},
		{"a long line", func(w http.ResponseWriter, r *http.Request) {
			io.WriteString(w, strings.Repeat("x", maxColumn+1))
		}, []string{"\n" + strings.Repeat("x", maxColumn) + "...\n"}, ""},
		{"a terminal's control sequences", func(w http.ResponseWriter, r *http.Request) {
			io.WriteString(w, "a\x1b[2Jb\u009bc")
		}, []string{"\na[2Jbc\n"}, ""},
		{"a short body", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", "10")
			io.WriteString(w, "short")
		}, []string{"200 OK"}, "cut off"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			app := httptest.NewServer(tt.handler)
			defer app.Close()
			var out strings.Builder
			url := strings.Replace(app.URL, "127.0.0.1", "calm-otter.localhost", 1)
			err := visit(t.Context(), url, &out)
			if tt.wantErr == "" && err != nil || tt.wantErr != "" && (err == nil || !strings.Contains(err.Error(), tt.wantErr)) {
				t.Errorf("error %v, want %q", err, tt.wantErr)
			}
			for _, want := range tt.want {
				if !strings.Contains(out.String(), want) {
					t.Errorf("shown:\n%s\nwant %q in it", out.String(), want)
				}
			}
			if strings.Contains(out.String(), "unseen") {
				t.Error("the body is shown beyond its start")
			}
		})
	}
}

func TestVisitWithoutServer(t *testing.T) {
	app := httptest.NewServer(nil)
	app.Close()
	if err := visit(t.Context(), app.URL, io.Discard); err == nil || !strings.Contains(err.Error(), "no answer") {
		t.Errorf("error %v, want no answer", err)
	}
}
