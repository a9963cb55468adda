package server_test

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/revtun/tunnel/internal/auth"
	"github.com/revtun/tunnel/internal/registry"
	"github.com/revtun/tunnel/internal/rig/poll"
	"github.com/revtun/tunnel/internal/server"
)

// S15: strangers, who can have as many identities as they like, end no more than
// half of the holds from where they are. Owners of tokens count each for itself.
func TestHoldsOfStrangers(t *testing.T) {
	const most = 20
	list := strings.Builder{}
	for i := range most {
		fmt.Fprintf(&list, "the-token-%d\n", i)
	}
	for name, test := range map[string]struct {
		auth  auth.Authenticator
		token func(i int) string
		left  int // of the neighbour's
	}{
		"sessions":         {auth.Anonymous{}, func(int) string { return "" }, most / 2},
		"made-up tokens":   {auth.Anonymous{}, func(i int) string { return fmt.Sprint("any-token-", i) }, most / 2},
		"tokens of a file": {tokens(t, filepath.Join(t.TempDir(), "tokens"), list.String()), func(i int) string { return fmt.Sprint("the-token-", i) }, 0},
	} {
		t.Run(name, func(t *testing.T) {
			names := &registry.Memory{MaxHeld: most}
			n := start(t, server.Config{Auth: test.auth, Registry: names, Hold: time.Hour})
			for i := range most / 2 {
				release, err := names.Bind(t.Context(), &registry.Route{Name: fmt.Sprint("neighbour-", i), Owner: "neighbour"})
				if err != nil {
					t.Fatal(err)
				}
				release(time.Hour)
			}
			for i := range most {
				c := n.connect("", test.token(i), "")
				bound := fmt.Sprintf("name-%02d", i)
				c.must(c.bind(bound))
				c.mux.Close()
				poll.Until(t, "it is held", func() bool { return held(t, names, bound) == 1 })
			}
			if left := held(t, names, "neighbour-"); left != test.left {
				t.Errorf("%d of the neighbour's 10 names are held, want %d", left, test.left)
			}
		})
	}
}

// held counts the names that begin so and are held.
func held(t *testing.T, names registry.Registry, prefix string) (n int) {
	t.Helper()
	infos, err := names.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range infos {
		if !i.Online && strings.HasPrefix(i.Name, prefix) {
			n++
		}
	}
	return n
}
