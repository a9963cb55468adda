package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/revtun/tunnel/internal/forward"
	"github.com/revtun/tunnel/internal/proxy"
	"github.com/revtun/tunnel/pkg/protocol"
	"github.com/revtun/tunnel/pkg/tunnel"
)

const connectDescription = `NAME is what another client was given as --name, beside --private and the same token:

  tunnel-client tcp 5432 --private --name db                        where the database is
  tunnel-client connect db --listen 127.0.0.1:5432                  where it is needed

Nothing of it is public: neither a name nor a port. Connections to --listen come out at the
other client's TARGET, byte for byte; the end of one direction is passed on as such, and a
reset as a reset. They reach a private http TARGET, too, which then gets the bytes as they
are: Host is not rewritten, and an https one is to be spoken to in TLS.

With --udp it is datagrams, of an endpoint that another client has by tunnel-client udp
--private. Names of that kind are apart from the others: both may have the same.

  tunnel-client udp 53 --private --name dns                         where the DNS server is
  tunnel-client connect dns --udp --listen 127.0.0.1:5353           where it is needed

The app sees each local address and port at a socket of its own. Datagrams that find no room
on the way are dropped, as networks do, and so are those that come while the server or the
other client is away.

Without a token it is this machine's and user's, so both ends are to be his.

While the server or the other client is away, a new connection waits for it up to 15 s, and
is reset then. At the first Ctrl-C or SIGTERM no new connection is taken; those that are open
end with the second one, or after --grace; who sends datagrams, when nothing came for a second.`

// connectTime is how long a local connection waits for its way to the endpoint. It is
// more than the server's own wait for a client that dropped, by default.
const connectTime = 15 * time.Second

// connectFlags are those of connect: the common ones but for what claims a name.
func connectFlags() []cli.Flag {
	flags := []cli.Flag{
		str("listen", "127.0.0.1:0", "", "`ADDRESS` for local connections: host:port, a port of 127.0.0.1, or unix:/path; port 0 is any that is free"),
		yes("udp", "the endpoint is of kind udp: --listen takes datagrams, at host:port or a port"),
		&cli.DurationFlag{Name: "idle-timeout", DefaultText: "2m", Usage: "`TIME` after which, with --udp, a local address that sends and gets nothing is forgotten", EnvVars: env("idle-timeout")},
	}
	for _, f := range commonFlags() {
		switch f.Names()[0] {
		case "name", "private", "url-file":
		default:
			flags = append(flags, f)
		}
	}
	return flags
}

func (p process) connectCommand() *cli.Command {
	return &cli.Command{
		Name: "connect", Usage: "reach another client's private endpoint",
		UsageText:       "tunnel-client connect [options] NAME",
		Description:     connectDescription,
		Flags:           connectFlags(),
		HideHelpCommand: true,
		OnUsageError:    onUsageError,
		Action: func(c *cli.Context) error {
			r, err := configureConnect(c, p.stderr)
			if err != nil {
				return usageError{err}
			}
			if err := p.reach(c.Context, r); err != nil {
				r.report(p.stderr, err)
				return codeOf(err)
			}
			return nil
		},
	}
}

// reached is a private endpoint behind a local address.
type reached struct {
	*config
	name      string
	at        local
	udp       bool // takes datagrams there
	retry     bool
	out       output
	connector *tunnel.Connector
	open      atomic.Int64 // local connections, or addresses that datagrams come from
	told      told
}

// entrance is where local programs come in.
type entrance interface {
	Addr() net.Addr
	run(drain context.Context) error // takes what comes until the entrance is closed
	refuse()                         // lets in nobody new
	wait()                           // until what came in has ended
	Close() error
}

func configureConnect(c *cli.Context, stderr io.Writer) (*reached, error) {
	if c.NArg() != 1 {
		return nil, fmt.Errorf("connect takes one NAME, that of a private endpoint, got %d: tunnel-client connect db (see tunnel-client connect --help)", c.NArg())
	}
	r := &reached{config: &config{json: c.Bool("json"), logFormat: text(c, "log-format")}, name: c.Args().First(), retry: c.Bool("retry"), udp: c.Bool("udp")}
	if err := protocol.CheckName(r.name); err != nil {
		return nil, err
	}
	for _, name := range []string{"grace", "idle-timeout"} {
		if c.Duration(name) < 0 {
			return nil, fmt.Errorf("--%s %s is negative", name, c.Duration(name))
		}
	}
	r.idle = c.Duration("idle-timeout")
	var err error
	if r.log, err = logger(c, stderr); err != nil {
		return nil, err
	}
	if r.at, err = parseLocal(text(c, "listen")); err != nil {
		return nil, err
	}
	if r.udp && r.at.network == "unix" {
		return nil, fmt.Errorf("--listen %s takes no datagrams: with --udp use 127.0.0.1:5353, or a port", text(c, "listen"))
	}
	if r.client, err = client(c); err != nil {
		return nil, err
	}
	r.client.Log = r.log
	r.hasToken = showsToken(r.client)
	return r, nil
}

// reach is the command connect: it passes local connections on until a signal comes,
// ctx ends or the server says no.
func (p process) reach(ctx context.Context, r *reached) error {
	drain, end, stop := p.watch(ctx)
	defer stop()
	l, err := r.enter()
	if err != nil {
		return err
	}
	defer l.Close()
	if !r.at.own {
		r.log.Warn("--listen is no loopback address: whoever reaches it reaches the private endpoint", "listen", l.Addr().String())
	}
	if r.exposesToken() {
		r.log.Warn("the token crosses the network in the clear: use an https:// server", "server", r.client.Server)
	}
	r.out = newOutput(p, r.config)
	defer r.out.close()
	r.identify()
	r.client.Events = func(e tunnel.Event) { r.show(drain, e, l) }
	d, err := r.client.Connect(drain, tunnel.ConnectOptions{Retry: r.retry})
	if err != nil {
		if drain.Err() != nil {
			return context.Cause(end) // nil, but after a second signal
		}
		return err
	}
	r.connector = d
	return r.serve(drain, end, l)
}

// enter opens the entrance.
func (r *reached) enter() (entrance, error) {
	if r.udp {
		return r.enterUDP()
	}
	l, err := r.at.listen()
	if err != nil {
		return nil, err
	}
	return &connections{Listener: l, r: r}, nil
}

// identify takes the machine's key for a token where the user named none.
func (r *reached) identify() {
	server := canonical(r.client.Server)
	s, err := openState()
	if err == nil {
		r.client.TryFirst = s.transport(server)
		r.used = func(t tunnel.Transport) error { return s.keepTransport(server, t) }
		if !r.hasToken {
			r.client.Token, err = s.machineToken(server)
		}
	}
	if err != nil && !r.hasToken {
		r.log.Warn("there is no key of this machine, and without it or a token no private endpoint is this client's", "err", err)
	}
}

func (r *reached) show(drain context.Context, e tunnel.Event, l entrance) {
	c := newChange(drain, e, "")
	c.url, c.name, c.listen, c.inFlight = "private:"+r.name, r.name, addrOf(l), r.open.Load()
	c.server, c.served = r.client.Server, servedConnections
	r.out.change(c)
	r.keepTransport(e)
}

// serve takes what comes to l. drain and end are those of watch.
func (r *reached) serve(drain, end context.Context, l entrance) error {
	ended := make(chan error, 1)
	go func() { ended <- l.run(drain) }()
	measuring, stop := context.WithCancel(drain)
	var tasks sync.WaitGroup
	defer tasks.Wait()
	defer stop()
	tasks.Go(func() { measure(measuring, r.out, r.connector) })
	var err error
	select {
	case err = <-ended:
		ended <- nil
	case <-r.connector.Done():
		err = lostError{r.connector.Err()}
	case <-drain.Done():
		l.refuse()
		grace, cancel := context.WithTimeout(end, max(r.client.Grace, 0))
		if errors.Is(r.connector.Drain(grace), context.DeadlineExceeded) {
			r.log.Warn("grace is over, ending what is left", "grace", max(r.client.Grace, 0))
		}
		cancel()
	}
	l.Close()
	r.connector.Close()
	<-ended
	l.wait()
	if end.Err() != nil {
		return context.Cause(end)
	}
	return err
}

// connections is the entrance of kind TCP.
type connections struct {
	net.Listener
	r     *reached
	conns sync.WaitGroup
}

func (l *connections) run(drain context.Context) error {
	return acceptAll(l, func(c net.Conn) { l.conns.Go(func() { l.r.pass(drain, c) }) })
}

func (l *connections) refuse() { l.Close() }

func (l *connections) wait() { l.conns.Wait() }

// acceptAll accepts until l is closed, and longer than descriptors last.
func acceptAll(l net.Listener, serve func(net.Conn)) error {
	for {
		c, err := l.Accept()
		var passing interface{ Temporary() bool }
		switch {
		case err == nil:
			serve(c)
		case errors.As(err, &passing) && passing.Temporary():
			time.Sleep(50 * time.Millisecond)
		default:
			return err
		}
	}
}

// pass passes one local connection on.
func (r *reached) pass(drain context.Context, c net.Conn) {
	r.open.Add(1)
	defer r.open.Add(-1)
	start := time.Now()
	ctx, cancel := context.WithTimeout(drain, connectTime)
	defer cancel()
	e := forward.Exchange{Method: "CONNECT", Path: c.RemoteAddr().String()}
	setLinger(c, 0) // its end is an abort until there is another end, also this process's
	stream, err := r.connector.Dial(ctx, r.name)
	if err != nil {
		code, cause, hint := r.explainAway(err)
		r.log.Warn("connection failed", "private", r.name, "code", string(code), "err", cause, "hint", hint)
		c.Close()
		e.Code, e.Status, e.Duration = code, code.Status(), time.Since(start)
		r.out.request(request{Exchange: e})
		return
	}
	setLinger(c, -1)
	proxy.Splice(c, stream, nil)
	e.Status, e.Duration = 200, time.Since(start)
	r.out.request(request{Exchange: e})
}

// explainAway is explain of what kept a connection from the endpoint.
func (r *reached) explainAway(err error) (code protocol.Code, cause, hint string) {
	if errors.Is(err, context.DeadlineExceeded) {
		return "", "the server, or the other client, is away", "the connection to the server is made again by itself"
	}
	return r.explain(err)
}

// setLinger says what closing a TCP connection is to its other end: with 0 an abort.
func setLinger(c net.Conn, seconds int) {
	if tcp, ok := c.(*net.TCPConn); ok {
		tcp.SetLinger(seconds)
	}
}
