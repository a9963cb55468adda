// Package doctor finds out what keeps a client from its server, or a server from the
// local app, one step after the other, each with a verdict and a way out.
//
// It looks at the way as the client goes it: what package transport tells of a
// connection's making (path.go), and sessions of package tunnel, which claim no name but
// a random one for PTTH (session.go); and at the local app (app.go).
package doctor

import (
	"cmp"
	"context"
	"errors"
	"net"
	"net/url"
	"strings"
	"time"

	"github.com/revtun/tunnel/internal/forward"
	"github.com/revtun/tunnel/internal/transport"
	"github.com/revtun/tunnel/pkg/protocol"
	"github.com/revtun/tunnel/pkg/tunnel"
)

// stepTime bounds a step, but for the one that is there to wait.
const stepTime = 10 * time.Second

const checkServer = "check --server, it is the URL of the tunnel server itself"

// Verdict is what is to be thought of a step.
type Verdict string

// The verdicts.
const (
	OK   Verdict = "ok"
	Warn Verdict = "warn" // tunnels work, and not as they could
	Fail Verdict = "fail"
	Skip Verdict = "skip" // there is nothing to look at, or what it depends on failed
)

// The steps, in their order.
const (
	DNS       = "dns"
	TCP       = "tcp"
	Proxy     = "proxy"
	TLS       = "tls"
	Server    = "server"
	Clock     = "clock"
	Raw       = "raw"
	WebSocket = "websocket"
	PTTH      = "ptth"
	Token     = "token"
	App       = "app"
	Idle      = "idle"
)

// Step is one that is over.
type Step struct {
	Name    string        `json:"name"`
	Verdict Verdict       `json:"verdict"`
	Took    time.Duration `json:"-"`
	Detail  string        `json:"detail"` // what was seen; peers chose parts of it
	Code    protocol.Code `json:"code,omitempty"`
	Hint    string        `json:"hint,omitempty"` // the way out, of what is not OK
}

// Doctor says what to look at.
type Doctor struct {
	// Client is the way to the server. Of its fields Server, Token, TokenSource, Transport,
	// TLS, Proxy and Agent count.
	Client tunnel.Client
	// App is the local app; nil: it is not looked at.
	App *forward.Target
	// Insecure accepts any certificate of an https App.
	Insecure bool
	// Idle is how long a session is to be silent, to see whether it lives on. 0: that is
	// not tried.
	Idle time.Duration
	// Resolver is asked for the server's addresses, or the proxy's. Nil: the system's.
	Resolver *net.Resolver
	// Show is called with each step when it is over. May be nil.
	Show func(Step)
}

// Run goes through all steps, and returns them. The error is of the Client's fields, a
// [*tunnel.ConfigError]. When ctx ends, what was under way fails.
func (d *Doctor) Run(ctx context.Context) ([]Step, error) {
	v, err := d.visit()
	if err != nil {
		return nil, err
	}
	v.path(ctx)
	kind := v.transports(ctx)
	v.app(ctx)
	v.idle(ctx, kind)
	return v.steps, nil
}

// visit is one Run.
type visit struct {
	*Doctor
	server *url.URL
	proxy  *url.URL // nil: none
	steps  []Step
	ptth   bool   // the server says that it has it
	broken string // the step after which the server is out of reach; "": it is not
}

func (d *Doctor) visit() (*visit, error) {
	server := cmp.Or(d.Client.Server, tunnel.DefaultServer)
	u, err := url.Parse(server)
	switch {
	case strings.Contains(server, "@"):
		return nil, &tunnel.ConfigError{Err: errors.New("the server's URL has a user in it: write http://HOST[:PORT] or https://HOST[:PORT]")}
	case err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "":
		return nil, &tunnel.ConfigError{Err: transport.WrongServer(server)}
	}
	choose := d.Client.Proxy
	if choose == nil {
		choose = transport.FromEnvironment()
	}
	proxy, err := choose(u)
	if err != nil {
		return nil, &tunnel.ConfigError{Err: err}
	}
	return &visit{Doctor: d, server: u, proxy: proxy}, nil
}

func (v *visit) show(s Step) {
	if s.Verdict == Fail && v.before(s.Name) {
		v.broken = s.Name
	}
	v.steps = append(v.steps, s)
	if v.Show != nil {
		v.Show(s)
	}
}

// before reports whether nothing behind a step can be looked at where that fails.
func (v *visit) before(name string) bool {
	switch name {
	case DNS, TCP, Proxy, TLS, Server, Token:
		return v.broken == ""
	}
	return false
}

func (v *visit) shown(name string) bool {
	for _, s := range v.steps {
		if s.Name == name {
			return true
		}
	}
	return false
}

// without shows steps that depend on what failed.
func (v *visit) without(names ...string) {
	for _, name := range names {
		if !v.shown(name) {
			v.show(Step{Name: name, Verdict: Skip, Detail: "needs " + v.broken})
		}
	}
}

func (v *visit) hasToken() bool { return v.Client.Token != "" || v.Client.TokenSource != nil }

// explain is what kept a session from the server.
func (v *visit) explain(s Step, err error) Step {
	s.Verdict = Fail
	var said *protocol.Error
	if !errors.As(err, &said) {
		s.Detail = strings.TrimPrefix(err.Error(), tunnel.ErrUnreachable.Error()+": ")
		if s.Name == Token {
			s.Hint = "run the command of --token-command by itself: its first line is to be the token"
		}
		return s
	}
	s.Code, s.Detail, s.Hint = said.Code, said.Message, said.Hint
	switch said.Code {
	case protocol.Unauthorized:
		if v.Client.TokenSource == nil {
			s.Hint = "ask the server's operator for a token, or look whether it was copied as a whole"
		}
		if !v.hasToken() {
			s.Detail, s.Hint = "the server lets nobody in without a token", "pass one with --token-file FILE or TUNNEL_TOKEN"
		}
	case protocol.WrongHost, protocol.NameUnknown, protocol.ClientOffline, protocol.NotFound:
		s.Hint = checkServer
	case protocol.UpgradeRequired:
		s.Detail = "the request arrived without its Upgrade: something on the way takes it out"
		s.Hint = "have the proxy in front of the server pass Upgrade and Connection on in HTTP/1.1, or use https://, which hides them from what is on the way"
	}
	s.Hint = cmp.Or(s.Hint, "try again later, or ask the server's operator")
	return s
}
