package server

import (
	"context"
	"errors"
	"log/slog"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/revtun/tunnel/internal/auth"
	"github.com/revtun/tunnel/pkg/protocol"
)

// record is a Resolver with one answer.
type record struct {
	value   string
	err     error
	lookups int
}

func (r *record) LookupTXT(context.Context, string) ([]string, error) {
	r.lookups++
	return []string{r.value}, r.err
}

// A record that was seen is not looked up again at once, outlasts name servers that
// are away, and does not outlast its own end.
func TestProofsAge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &record{value: "token:0"}
		server := &Server{proofs: newProofs(r)}
		prove := func(id string) error {
			s := &claimant{server: server, identity: auth.Identity{ID: id}, log: slog.New(slog.DiscardHandler)}
			return s.prove(t.Context(), "app.example.org")
		}
		want := func(what string, err error, code protocol.Code, lookups int) {
			t.Helper()
			if code == "" && err != nil || code != "" && !errors.Is(err, &protocol.Error{Code: code}) || r.lookups != lookups {
				t.Errorf("%s: %v after %d lookups, want %q after %d", what, err, r.lookups, code, lookups)
			}
		}
		want("the first time", prove("token:0"), "", 1)
		time.Sleep(proofFresh - time.Second)
		want("fresh", prove("token:0"), "", 1)
		want("another's", prove("token:1"), protocol.Forbidden, 2)
		time.Sleep(2 * time.Second)
		r.err = errors.New("no name server answers")
		want("not fresh, and nobody can tell", prove("token:0"), "", 3)
		time.Sleep(proofStale - proofFresh - 2*time.Second)
		want("almost stale", prove("token:0"), "", 4)
		time.Sleep(2 * time.Second)
		want("stale", prove("token:0"), protocol.DomainUnverified, 5)
		r.err = nil
		want("they answer", prove("token:0"), "", 6)
		time.Sleep(proofFresh + time.Second)
		r.value = "token:1"
		want("removed", prove("token:0"), protocol.Forbidden, 7)
		r.err = errors.New("no name server answers")
		want("removed, and they are away", prove("token:0"), protocol.DomainUnverified, 8)
	})
}

// What is remembered has a bound.
func TestProofsAreBounded(t *testing.T) {
	p := newProofs(&record{value: "token:0"})
	for range maxProofs {
		p.seen[proof{"token:0", strconv.Itoa(len(p.seen))}] = time.Now()
	}
	if found, err := p.lookUp(t.Context(), proof{"token:0", "app.example.org"}); !found || err != nil {
		t.Fatal(found, err)
	}
	if len(p.seen) > maxProofs {
		t.Errorf("%d are remembered", len(p.seen))
	}
}
