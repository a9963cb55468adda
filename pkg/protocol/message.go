package protocol

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
)

// MaxMessage is the largest control message in bytes, without its length.
const MaxMessage = 64 << 10

// Message is one control message: exactly one field is set. All fields nil is
// a message that a newer peer knows and this one does not: ignore it.
type Message struct {
	Hello   *Hello   `json:"hello,omitempty"`   // client, first
	Welcome *Welcome `json:"welcome,omitempty"` // server, in answer to hello
	Bind    *Bind    `json:"bind,omitempty"`    // client
	Bound   *Bound   `json:"bound,omitempty"`   // server, in answer to bind
	Unbind  *Unbind  `json:"unbind,omitempty"`  // client
	Drain   *Drain   `json:"drain,omitempty"`   // either: no new requests, please
	Drained *Drained `json:"drained,omitempty"` // server, in answer to the client's drain
	Bye     *Bye     `json:"bye,omitempty"`     // either, last: why the session ends
}

// Hello opens the control stream.
type Hello struct {
	Versions []int  `json:"versions"`         // those that the client speaks
	Agent    string `json:"agent,omitempty"`  // "tunnel-client/1.2.3", for logs
	Resume   string `json:"resume,omitempty"` // the secret of the welcome before, on a reconnect
	// Connect says that the client is going to open streams to private endpoints.
	Connect bool `json:"connect,omitempty"`
}

// Welcome answers a hello.
type Welcome struct {
	Version int    `json:"version"`
	Agent   string `json:"agent,omitempty"`
	// Resume is the secret with which the next connection of the same SESSION
	// takes over from this one. It is to be kept in memory only.
	Resume string `json:"resume"`
	// Resumed says that an earlier connection of this session was fenced.
	Resumed bool `json:"resumed,omitempty"`
	// Connect grants the hello's.
	Connect bool `json:"connect,omitempty"`
}

// Bind claims a name.
type Bind struct {
	ID   int    `json:"id"`             // repeated in the answer
	Kind Kind   `json:"kind,omitempty"` // default KindHTTP
	Name string `json:"name,omitempty"` // a DNS label; empty: the server picks one
	// Generation orders clients of one token that claim the same name of [KindHTTP]
	// with one: the highest takes it over, and a lower one is refused. 0: none.
	Generation uint64 `json:"generation,omitempty"`
	// Port is the public port that is wanted, of [KindTCP] and [KindUDP]. 0: one that
	// the server picks, which is the same for the same owner and name where it can be.
	Port int `json:"port,omitempty"`
	// Domains are host names outside of the server's domain that lead to the endpoint
	// too, each as [CheckDomain] has it.
	Domains []string `json:"domains,omitempty"`
	// Private makes an endpoint that only clients reach, and no visitor.
	Private bool `json:"private,omitempty"`
	// Upstream makes the server's edge rewrite requests and answers so that the
	// local app sees itself called directly. Nil leaves them as they are.
	Upstream *Upstream `json:"upstream,omitempty"`
	// Visitor makes the server say in [HeaderVisitor] who each request is from, of
	// [KindHTTP]. The other kinds say it in any case.
	Visitor bool `json:"visitor,omitempty"`
	// Share is who may visit, and what is done on the way. Nil: everybody, and nothing.
	// The bound must have all its parts, or nothing is to be served.
	Share *Share `json:"share,omitempty"`
}

// Upstream is how the local app is called: the origin (RFC 6454) it believes
// in. It is never dialled by the server.
type Upstream struct {
	Scheme string `json:"scheme"` // "http" or "https"
	Host   string `json:"host"`   // host[:port], as the local app expects it in Host
}

// Bound answers a bind; Error is nil when the name was claimed.
type Bound struct {
	ID   int    `json:"id"`
	Name string `json:"name,omitempty"`
	URL  string `json:"url,omitempty"` // where visitors find it
	// Port is the public one, of [KindTCP] and [KindUDP].
	Port int `json:"port,omitempty"`
	// URLs are those of Domains, in their order.
	URLs []string `json:"urls,omitempty"`
	// Enforced are the parts of the bind's Share, see [Share.Parts]: what a server does not
	// know is missing.
	Enforced []string `json:"enforced,omitempty"`
	Error    *Error   `json:"error,omitempty"`
}

// Unbind gives a name back; it is free at once.
type Unbind struct {
	Name string `json:"name"`
}

// Drain asks the peer to start nothing new. From the client: give my names
// back and finish what is in flight; the server answers with [Drained]. From
// the server: it is going away, or this connection's stream ids run out; connect
// again. What is in flight will be finished.
type Drain struct {
	Reason string `json:"reason,omitempty"`
}

// Drained says that no further request will come on the session.
type Drained struct{}

// Bye says why the sender ends the session, with the way out.
type Bye struct {
	Error *Error `json:"error,omitempty"` // nil: a normal end
}

// Write writes m to w as one write: its length in four bytes, big-endian, then
// JSON.
func Write(w io.Writer, m *Message) error {
	body, err := json.Marshal(m)
	if err != nil {
		return fmt.Errorf("encode control message: %w", err)
	}
	if len(body) > MaxMessage {
		return fmt.Errorf("control message of %d bytes is over the limit of %d", len(body), MaxMessage)
	}
	buf := make([]byte, 4, 4+len(body))
	binary.BigEndian.PutUint32(buf, uint32(len(body)))
	_, err = w.Write(append(buf, body...))
	return err
}

// Read reads one message from r. The error is io.EOF only where r ended
// between two messages. A message over [MaxMessage] is an error before any of
// it is read.
func Read(r io.Reader) (*Message, error) {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint32(head[:])
	if n > MaxMessage {
		return nil, &Error{Code: ProtocolViolation, Message: fmt.Sprintf("control message of %d bytes is over the limit of %d", n, MaxMessage)}
	}
	body := make([]byte, n)
	if _, err := io.ReadFull(r, body); err != nil {
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return nil, err
	}
	m := new(Message)
	if err := json.Unmarshal(body, m); err != nil {
		return nil, &Error{Code: ProtocolViolation, Message: "control message is not valid: " + err.Error()}
	}
	return m, nil
}
