package tunnel

import (
	"errors"
	"slices"
	"testing"
	"testing/synctest"

	"github.com/revtun/tunnel/pkg/protocol"
)

// A client asks for its domains on each connection, and goes on trying where the
// server cannot look them up just then.
func TestDomainsOnReconnect(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, end := begin()
		defer end()
		given := []string{"app.example.org", "b.example.org"}
		urls := []string{"http://app.example.org", "http://b.example.org"}
		asked := make(map[int][]string)
		f.bound = func(n int, b *protocol.Bind, answer *protocol.Bound) {
			asked[n] = b.Domains
			answer.URLs = urls
			if n == 1 || n == 2 {
				*answer = protocol.Bound{ID: b.ID, Error: &protocol.Error{Code: protocol.DomainUnverified, Message: "no name server answers"}}
			}
		}
		c, told := f.client()
		l, err := c.Listen(t.Context(), Options{Name: "demo", Domains: given})
		if err != nil {
			t.Fatal(err)
		}
		given[0] = "changed.example.org" // which is the caller's
		if e := expect(t, told, Ready); !slices.Equal(e.URLs, urls) || !slices.Equal(l.URLs(), urls) {
			t.Errorf("URLs are %q and %q", e.URLs, l.URLs())
		}
		f.newest().Close()
		expect(t, told, Disconnected)
		if e := expect(t, told, Reconnected); !slices.Equal(e.URLs, urls) {
			t.Errorf("URLs are %q", e.URLs)
		}
		l.Close()
		for n := range 4 {
			if want := []string{"app.example.org", "b.example.org"}; !slices.Equal(asked[n], want) {
				t.Errorf("connection %d asked for %q", n, asked[n])
			}
		}
	})
}

// A server that is older than domains does not claim the name alone.
func TestDomainsUnknownToTheServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, end := begin()
		defer end()
		c, _ := f.client()
		_, err := c.Listen(t.Context(), Options{Domains: []string{"app.example.org"}})
		if !errors.Is(err, &protocol.Error{Code: protocol.KindUnsupported}) {
			t.Errorf("got %v", err)
		}
		var config *ConfigError
		if _, err := c.Listen(t.Context(), Options{Domains: []string{"App.example.org"}}); !errors.As(err, &config) {
			t.Errorf("got %v", err)
		}
	})
}
