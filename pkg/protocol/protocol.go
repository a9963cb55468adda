// Package protocol is the wire of the tunnel: its messages, their codec, its
// error codes and versions. Reading this comment is reading the whole flow.
//
// # The upgrade
//
// A client makes up a random session id and asks the server's own host for
//
//	GET /.well-known/tunnel/SESSION HTTP/1.1
//	Connection: Upgrade
//	Upgrade: tunnel.v1
//	Authorization: Bearer TOKEN
//
// and the server answers 101 with the same Upgrade token. With
// "Upgrade: websocket" and "Sec-WebSocket-Protocol: tunnel.v1" the bytes
// travel in binary WebSocket messages instead. A refusal is a plain HTTP
// status with a JSON body, see [Refusal]; nothing has been upgraded then.
//
// # The reversal
//
// After the 101 the connection carries yamux. The client is the yamux client
// (its stream ids are odd) and opens one stream, the control stream, on which
// both send length-prefixed JSON, see [Message]: first hello and welcome, then
// bind and bound for every name, and later drain or bye. The server opens
// every other stream, but those to private endpoints, see below. A stream that a
// client opens beside the control stream ends its session.
//
// From here on the roles are reversed: each stream that the server opens is
// one HTTP/1.1 connection on which the server is the HTTP client and the
// tunnel client is the HTTP server, one request at a time, kept for the next.
// The requests of the route's visitors come as they are; a session that bound
// more than one name finds the name in [HeaderRoute]. Where the bind asked for it,
// the visitor's address is in [HeaderVisitor].
//
// A visitor's connection to a route of kind tcp or tls is the request
//
//	CONNECT NAME HTTP/1.1
//	Forwarded: for="ADDRESS:PORT"
//
// (RFC 9110, section 9.3.6; RFC 7239), which the client answers with 200, and then
// the connection's bytes follow; or with a 5xx that has [HeaderError]. The end of
// one direction is the stream's end in that direction, an abort its reset.
//
// The datagrams of a visitor of a route of kind udp, one address and port, are the
// request
//
//	GET /.well-known/masque/udp/NAME/0/ HTTP/1.1
//	Connection: Upgrade
//	Upgrade: connect-udp
//	Capsule-Protocol: ?1
//	Forwarded: for="ADDRESS:PORT"
//
// which the client answers with 101, and then DATAGRAM capsules follow in both
// directions, of context 0 (RFC 9297, section 3; RFC 9298, sections 4 and 5). Where the
// target of RFC 9298 has a host and a port stands NAME: what is called is the client's
// to say. Either end may end the stream when nothing came for a while.
//
// # Private endpoints
//
// A route that was bound as private has no public host and no port. Clients of the
// same owner reach it, whose hello said that they would (Connect): where the welcome
// says so, too, such a client opens streams of its own, each with the request
//
//	CONNECT NAME HTTP/1.1
//
// which the server answers with 200 once the other client has, and then the bytes
// follow; or with an error that has [HeaderError]. What is another's is not told from
// what is not there. Of kind udp it is the upgrade to connect-udp of above, a stream for
// each of whom the client passes datagrams on for. A name of kind udp is not one of the
// other kinds.
//
// # Who may visit
//
// A bind may say who may visit, for how long, and what is changed on the way, see
// [Share]. The server carries that out, and names in the bound what it does: a client
// serves nothing where a part is missing. When an endpoint's time is over, the server ends
// the session that has no other one, with [Ended].
//
// # Liveness
//
// Both ends send a yamux ping when nothing arrived for a while. Every received
// byte counts as life; a peer that is silent for too long is given up.
//
// # Versions
//
// An unknown message, and an unknown field of a known one, is ignored. A hello
// names the versions that the client speaks; the welcome names the one chosen.
package protocol

// The versions of the control messages that this package speaks.
const (
	Version    = 1
	MinVersion = 1
)

const (
	// Upgrade is the token of the Upgrade header field (RFC 9110, section 7.8)
	// and of Sec-WebSocket-Protocol (RFC 6455, section 11.5).
	Upgrade = "tunnel.v1"

	// PathPrefix is what comes before SESSION in the request that upgrades.
	PathPrefix = "/.well-known/tunnel/"

	// HeaderError carries a [Code] in each response that the tunnel itself made.
	HeaderError = "Tunnel-Error"

	// HeaderRoute carries the route's name to a session that bound several.
	HeaderRoute = "Tunnel-Route"

	// HeaderVisitor carries the visitor's ADDRESS:PORT, of IPv6 [ADDRESS]:PORT, to a
	// client whose [Bind] asked for it. The port is 0 where a trusted proxy said who the
	// visitor is. A field of this name that a visitor sends never gets through.
	HeaderVisitor = "Tunnel-Visitor"

	// PathUDP begins the path of a request for datagrams (RFC 9298, section 2), and
	// UpgradeUDP is what that asks to upgrade to.
	PathUDP    = "/.well-known/masque/udp/"
	UpgradeUDP = "connect-udp"
)

// Kind is what a route carries.
type Kind string

// The kinds of routes.
const (
	KindHTTP Kind = "http" // requests, by the host name
	KindTCP  Kind = "tcp"  // connections to a port of the server
	KindTLS  Kind = "tls"  // connections by the host name in their ClientHello; the server does not see inside
	KindUDP  Kind = "udp"  // datagrams to a port of the server
)
