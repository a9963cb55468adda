package doctor

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/revtun/tunnel/pkg/protocol"
	"github.com/revtun/tunnel/pkg/tunnel"
)

// pingEvery is how seldom a session is silent, at most: both ends ping.
const pingEvery = 15 * time.Second

// transports tries each way to upgrade, and returns one by which sessions can be had;
// "": none.
func (v *visit) transports(ctx context.Context) tunnel.Transport {
	if v.broken != "" {
		v.without(Raw, WebSocket, PTTH, Token)
		return ""
	}
	raw, err := v.try(ctx, Raw, v.session(tunnel.Raw))
	if refusesToken(err) {
		v.show(v.explain(Step{Name: Token, Took: raw.Took}, err))
		v.without(Raw, WebSocket, PTTH)
		return ""
	}
	websocket, _ := v.try(ctx, WebSocket, v.session(tunnel.WebSocket))
	ptth := v.reverse(ctx)
	var good tunnel.Transport
	token := Step{Name: Token, Verdict: Skip, Detail: "no upgrade came through"}
	for _, s := range []Step{raw, websocket, ptth} {
		switch s.Verdict {
		case Fail:
			s = v.spared(s, raw.Verdict == OK || websocket.Verdict == OK)
		case OK:
			token.Verdict, token.Detail = OK, "accepted"
			if s.Name != PTTH && good == "" {
				good = tunnel.Transport(s.Name)
			}
		}
		v.show(s)
	}
	if !v.hasToken() && token.Verdict == OK {
		token.Detail = "none was shown, and none is wanted"
	}
	v.show(token)
	return good
}

// reverse is the step ptth.
func (v *visit) reverse(ctx context.Context) Step {
	if !v.ptth {
		return Step{Name: PTTH, Verdict: Skip, Detail: "the server does not say that it has it"}
	}
	s, err := v.try(ctx, PTTH, v.attach)
	if said := new(protocol.Error); errors.As(err, &said) && said.Code == protocol.Forbidden {
		s = Step{Name: PTTH, Verdict: Skip, Took: s.Took, Detail: "the server was reached, and this token may not claim the random name that it takes to try: " + said.Message}
	}
	return s
}

// spared is s, which failed, as a warning where the client that the user wants does
// without that transport.
func (v *visit) spared(s Step, another bool) Step {
	switch wanted := v.Client.Transport; {
	case wanted == tunnel.Transport(s.Name), !another:
		if s.Hint == "" {
			s.Hint = "see what the other transports say; behind a proxy, have it pass upgrades on"
		}
	case wanted == "" || wanted == tunnel.Auto:
		s.Verdict = Warn
		if s.Hint == "" && s.Name != PTTH {
			s.Hint = "nothing is to be done: clients take the other transport by themselves"
		}
	default:
		s.Verdict = Warn
	}
	if s.Hint == "" {
		s.Hint = "stay with the transports that work"
	}
	return s
}

// try is one attempt to use a transport.
func (v *visit) try(ctx context.Context, name string, use func(context.Context) error) (Step, error) {
	ctx, cancel := context.WithTimeout(ctx, stepTime)
	defer cancel()
	start := time.Now()
	err := use(ctx)
	s := Step{Name: name, Verdict: OK, Took: time.Since(start), Detail: "upgraded, and the server answers"}
	if err != nil {
		s = v.explain(s, err)
	}
	return s, err
}

// session has a session by t, which claims nothing.
func (v *visit) session(t tunnel.Transport) func(context.Context) error {
	return func(ctx context.Context) error {
		c, err := v.client(t, nil).Connect(ctx, tunnel.ConnectOptions{})
		if err == nil {
			c.Close()
		}
		return err
	}
}

// attach serves a random name by PTTH for a moment.
func (v *visit) attach(ctx context.Context) error {
	b, err := v.client(tunnel.PTTH, nil).Attach(ctx, tunnel.Options{}, http.NotFoundHandler())
	if err == nil {
		b.Close()
	}
	return err
}

func (v *visit) client(t tunnel.Transport, events func(tunnel.Event)) *tunnel.Client {
	c := v.Client
	c.Transport, c.Events, c.Log = t, events, nil
	return &c
}

// refusesToken reports whether err says that the token is not good, or that there is none.
func refusesToken(err error) bool {
	if _, ok := errors.AsType[*tunnel.TokenError](err); ok {
		return true
	}
	for _, code := range []protocol.Code{protocol.Unauthorized, protocol.TokenRevoked, protocol.Forbidden, protocol.LoginThrottled, protocol.AuthUnavailable} {
		if errors.Is(err, &protocol.Error{Code: code}) {
			return true
		}
	}
	return false
}

// idle looks whether a session by t lives on when nothing is said.
func (v *visit) idle(ctx context.Context, t tunnel.Transport) {
	s := Step{Name: Idle, Verdict: Skip}
	switch {
	case v.Idle <= 0:
		s.Detail = "not tried: --idle is 0"
	case t == "" && v.broken != "":
		v.without(Idle)
		return
	case t == "":
		s.Detail = "needs " + Raw + " or " + WebSocket
	default:
		s = v.silence(ctx, t)
	}
	v.show(s)
}

// silence is the step idle.
func (v *visit) silence(ctx context.Context, t tunnel.Transport) Step {
	s := Step{Name: Idle, Verdict: Fail, Hint: "have what is on the way (a proxy, a firewall) keep connections that are silent for a minute; nginx: proxy_read_timeout"}
	lost := make(chan error, 1)
	client := v.client(t, func(e tunnel.Event) {
		if e.Type == tunnel.Disconnected || e.Type == tunnel.Draining && e.Err != nil {
			select {
			case lost <- e.Err:
			default:
			}
		}
	})
	connecting, cancel := context.WithTimeout(ctx, stepTime)
	defer cancel()
	c, err := client.Connect(connecting, tunnel.ConnectOptions{})
	if err != nil {
		return v.explain(s, err)
	}
	defer c.Close()
	start := time.Now()
	wait := time.NewTimer(v.Idle)
	defer wait.Stop()
	select {
	case err := <-lost:
		s.Took = time.Since(start)
		s.Detail = fmt.Sprintf("a session that was silent was cut after %v: %v", s.Took.Round(100*time.Millisecond), err)
		return s
	case <-ctx.Done():
		s.Detail = ctx.Err().Error()
		return s
	case <-wait.C:
	}
	answering, stop := context.WithTimeout(ctx, stepTime)
	defer stop()
	trip, err := c.Latency(answering)
	s.Took = time.Since(start)
	if err != nil {
		s.Detail = fmt.Sprintf("after %v a session gives no sign of life: %v", v.Idle, err)
		return s
	}
	s.Verdict, s.Hint = OK, ""
	s.Detail = fmt.Sprintf("a session that was silent for %v lives; a round trip takes %v", v.Idle, trip.Round(100*time.Microsecond))
	if v.Idle >= pingEvery {
		s.Detail = fmt.Sprintf("a session lived for %v, silent but for a ping every %v, as tunnels are; a round trip takes %v", v.Idle, pingEvery, trip.Round(100*time.Microsecond))
	}
	return s
}
