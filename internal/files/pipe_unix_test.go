//go:build unix

package files

import (
	"net/http"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// To open a pipe would wait for who writes to it, or end who does.
func TestPipe(t *testing.T) {
	dir := tree(t, map[string]string{"site/a.txt": ""})
	must(t, syscall.Mkfifo(filepath.Join(dir, "pipe"), 0o644))
	h := handler(t, Options{Dir: dir})
	if res := ask(t, h, "GET", "/pipe"); res.StatusCode != http.StatusNotFound {
		t.Errorf("a pipe: %s", res.Status)
	}
	if list := body(ask(t, h, "GET", "/")); strings.Contains(list, "pipe") || !strings.Contains(list, "a.txt") {
		t.Error(list)
	}
}
