// Package registry leads from a public name to the route that reaches its
// client. A [Route] is the one way to reach a client, whatever transport it
// came by; a cluster is one more [Registry].
package registry

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"time"

	"github.com/revtun/tunnel/internal/policy"
	"github.com/revtun/tunnel/pkg/protocol"
)

// Registry knows which names are claimed and by which route. Its methods may be
// called from many goroutines.
type Registry interface {
	// Bind claims r.Name for r. It replaces a name that is free, whose hold has
	// passed, or which is held for r.Owner. A name that is bound to the same owner
	// is replaced only where the old route's Alive says that its client is gone, or
	// r is of a later generation. One that is bound to or held for a later generation
	// than r's is not: the error wraps [ErrNewer]. Otherwise the error wraps [ErrTaken];
	// a cancelled ctx is its error.
	Bind(ctx context.Context, r *Route) (Release, error)
	// Lookup returns the route of name. The error wraps [ErrUnknown] or [ErrEnded], or
	// is an [*OfflineError] while the name is held for a client that dropped. It does
	// not wait.
	Lookup(ctx context.Context, name string) (*Route, error)
	// List returns what is bound or held, sorted by name.
	List(ctx context.Context) ([]Info, error)
}

// Release gives a name back. It stays its owner's for hold; with 0 it is free
// at once. Only the first call counts, and one that comes after the name went
// to another route changes nothing.
type Release func(hold time.Duration)

// Route is a name and the way to reach its client. It is never changed once
// bound.
type Route struct {
	Name  string
	Owner string // who may take the name over: an auth.Identity's ID
	Group string // whose holds its hold is counted with; "": Owner
	Kind  protocol.Kind
	// Generation orders routes of one owner and name: the highest has it. 0: it has
	// no order to others.
	Generation uint64
	Policy     *policy.Policy
	// Ends is when the route's time is over: whoever looks it up gets [ErrEnded] from then
	// on, and the name is anybody's. The zero time: never.
	Ends time.Time
	// HTTP sends a request to the client; nil where it takes none.
	HTTP http.RoundTripper
	// Dial opens a raw stream to the client, for the visitor at from; nil where it
	// takes none. The stream has CloseWrite, which ends one direction, and Reset, of
	// which the client's side sees an error. Of a route of kind UDP it carries
	// capsules (RFC 9297).
	Dial func(ctx context.Context, from netip.AddrPort) (net.Conn, error)
	// Alive asks the client for a sign of life, until ctx ends; nil: it is alive.
	Alive func(ctx context.Context) bool
	// Silent reports, once the name is given back, whether the client was given up
	// because nothing had come from it for long; nil: no.
	Silent func() bool
	// Lost is called when the name went to another route because Alive gave no
	// sign, or because that is of a later generation; nil: nobody is told.
	Lost func()
}

// before reports whether r is of an earlier generation than other.
func (r *Route) before(other *Route) bool {
	return r.Generation != 0 && r.Generation < other.Generation
}

// Info is what List tells of a name.
type Info struct {
	Name, Owner string
	Kind        protocol.Kind
	Online      bool
	HeldUntil   time.Time // the zero time while online
}

// Errors of a registry.
var (
	// ErrUnknown says that nobody claims the name.
	ErrUnknown = errors.New("name is not claimed")
	// ErrTaken says that the name is another's, or alive.
	ErrTaken = errors.New("name is taken")
	// ErrEnded says that the name's route has come to the end of its time, not long ago.
	ErrEnded = errors.New("its time is over")
	// ErrNewer is the ErrTaken of a name that a later generation has.
	ErrNewer = fmt.Errorf("a later generation has it: %w", ErrTaken)
)

// OfflineError says that the name's client dropped and may come back.
type OfflineError struct {
	Name string
	Kind protocol.Kind // of the route that it had
	// Silent says that nothing had come from the client for long when it was given
	// up: it is less likely to be back soon than one that dropped.
	Silent bool
	// Changed is closed when the name is bound again, or free.
	Changed <-chan struct{}
}

func (e *OfflineError) Error() string { return "client of " + e.Name + " is offline" }

// over reports whether the route's time is.
func (r *Route) over() bool { return !r.Ends.IsZero() && !time.Now().Before(r.Ends) }
