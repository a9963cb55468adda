//go:build unix

package files

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// To open a pipe would wait for who writes to it, or end who does.
func TestPipe(t *testing.T) {
	dir := tree(t, map[string]string{"site/a.txt": ""})
	pipe := filepath.Join(dir, "pipe")
	must(t, syscall.Mkfifo(pipe, 0o644))
	h := handler(t, Options{Dir: dir})
	opened := make(chan error, 1)
	go func() { // waits for a reader
		f, err := os.OpenFile(pipe, os.O_WRONLY, 0)
		opened <- err
		f.Close()
	}()
	for range 200 {
		if res := ask(t, h, "GET", "/pipe"); res.StatusCode != http.StatusNotFound {
			t.Errorf("a pipe: %s", res.Status)
		}
		if len(opened) > 0 {
			t.Fatal("the writer was let in")
		}
	}
	if list := body(ask(t, h, "GET", "/")); strings.Contains(list, "pipe") || !strings.Contains(list, "a.txt") {
		t.Error(list)
	}
	f, err := os.Open(pipe)
	must(t, err)
	defer f.Close()
	must(t, <-opened)
}

// A file that is exchanged for a link leads nowhere else, whenever that happens (S17).
func TestExchangedForALink(t *testing.T) {
	dir := tree(t, map[string]string{"secret.txt": "SECRET", "site/file": "text", "site/link": "-> ../secret.txt"})
	h := handler(t, Options{Dir: dir})
	at := filepath.Join(dir, "x")
	must(t, os.Link(filepath.Join(dir, "file"), at))
	stop, stopped := make(chan struct{}), sync.WaitGroup{}
	defer stopped.Wait()
	defer close(stop)
	stopped.Go(func() {
		next := at + ".next"
		for {
			for _, from := range []string{"link", "file"} {
				select {
				case <-stop:
					return
				default:
				}
				var err error
				if from == "link" {
					err = os.Symlink("../secret.txt", next)
				} else {
					err = os.WriteFile(next, []byte("text"), 0o644)
				}
				if err == nil {
					err = os.Rename(next, at)
				}
				if err != nil {
					t.Error(err)
					return
				}
			}
		}
	})
	seen := make(map[int]int)
	for range 1000 {
		res := ask(t, h, "GET", "/x")
		if got := body(res); strings.Contains(got, "SECRET") {
			t.Fatalf("%s %s", res.Status, got)
		}
		seen[res.StatusCode]++
	}
	if seen[200]+seen[404] != 1000 {
		t.Errorf("statuses %v", seen)
	}
}
