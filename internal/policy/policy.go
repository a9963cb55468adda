// Package policy says what a route's owner wants done to its requests on the
// way: who may visit, whose origin the local app believes in, whether it is told who the
// visitor is, and what is changed. The edge carries it
// out, so that a client which only passes bytes on is enough.
package policy

import (
	"sync"

	"github.com/revtun/tunnel/pkg/protocol"
)

// Policy belongs to a route and is never changed after the route was bound. A
// nil Policy, and its zero value, leave requests and answers as they are.
type Policy struct {
	// Scheme and Host are the origin (RFC 6454) by which the local app is called.
	// With an empty Host nothing is rewritten.
	Scheme, Host string
	// Visitor adds protocol.HeaderVisitor to requests, for the client.
	Visitor bool
	// Share is who may visit, and what is changed on the way; it has been checked. Nil:
	// everybody, and nothing.
	Share *protocol.Share

	entered entered
	login   sync.Mutex // a password is being looked at
}

// Rewrites reports whether requests and answers are to be rewritten.
func (p *Policy) Rewrites() bool { return p != nil && p.Host != "" }

// NamesVisitor reports whether requests are to say who the visitor is.
func (p *Policy) NamesVisitor() bool { return p != nil && p.Visitor }

// Edits are the changes of requests and of answers that the owner asked for; nil: none.
func (p *Policy) Edits() (request, response *protocol.Edits) {
	if !p.Shares() {
		return nil, nil
	}
	return p.Share.Request, p.Share.Response
}
