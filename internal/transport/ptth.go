package transport

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/revtun/tunnel/pkg/protocol"
)

// Transposed HTTP, draft-kazuho-ptth-ptth-01: what comes out of the upgrade carries no
// streams of ours but HTTP itself, with the roles turned around, in the version that
// both chose.

// ChoosePTTH returns what is to be spoken on the connection of r, which asks for PTTH:
// [protocol.ALPNHTTP2] where that is offered, else [protocol.ALPNHTTP1]. An error
// is a [*protocol.Error] to answer with [Refuse], before anything is promised.
func ChoosePTTH(w http.ResponseWriter, r *http.Request) (alpn string, err error) {
	if err := checkUpgrade(r, protocol.UpgradePTTH); err != nil {
		if r.ProtoMajor == 1 && errors.Is(err, &protocol.Error{Code: protocol.UpgradeRequired}) {
			w.Header().Set("Connection", "Upgrade")
			w.Header().Set("Upgrade", protocol.UpgradePTTH)
		}
		return "", err
	}
	offered, err := protocol.ParseALPN(r.Header.Values(protocol.HeaderALPN))
	if err != nil {
		return "", &protocol.Error{Code: protocol.BadRequest, Message: err.Error()}
	}
	for _, alpn := range []string{protocol.ALPNHTTP2, protocol.ALPNHTTP1} {
		if slices.Contains(offered, alpn) {
			return alpn, nil
		}
	}
	return "", &protocol.Error{
		Code: protocol.ALPNUnsupported, Message: "nothing that the origin offers in ALPN is spoken here",
		Hint: "offer " + protocol.FormatALPN(protocol.ALPNHTTP2, protocol.ALPNHTTP1),
	}
}

// AcceptPTTH answers r, for which [ChoosePTTH] chose alpn, with 101, and returns the
// connection, on which the server is the client of HTTP from now on. policy is what the
// server carries out, or nil. Errors are those of [Accept].
func AcceptPTTH(w http.ResponseWriter, alpn string, policy *protocol.Share) (net.Conn, error) {
	h := http.Header{
		"Connection":        {"Upgrade"},
		"Upgrade":           {protocol.UpgradePTTH},
		protocol.HeaderALPN: {protocol.FormatALPN(alpn)},
	}
	policy.ConfirmPolicy(h)
	conn, err := takeOver(w, h)
	if err != nil {
		return nil, err
	}
	LimitUnsent(conn)
	KeepAlive(conn) // HTTP/1.1 has no PING
	return conn, nil
}

// DialPTTH makes one connection and asks the proxy at d.Server for the requests of
// origins, to be sent in one of the versions of HTTP that alpn names. It returns the
// connection, on which the caller is the server of HTTP from now on, and the version
// chosen. d.Server's path is put before [protocol.PathPTTH]. Errors are those of
// [Dialer.Dial]; of a proxy that is not ours the [*Refused] says what it answered, and of
// one that does not confirm all of policy, which may be nil, it is a [*protocol.Error].
func (d *Dialer) DialPTTH(ctx context.Context, origins []protocol.Origin, policy *protocol.Share, alpn ...string) (conn net.Conn, chosen string, err error) {
	if len(origins) == 0 || len(alpn) == 0 {
		return nil, "", errors.New("PTTH needs an origin and a version of HTTP")
	}
	path := protocol.PTTHPath(origins)
	plain, err := url.PathUnescape(path)
	if err != nil {
		return nil, "", err
	}
	req, err := d.request(ctx, plain, path)
	if err != nil {
		return nil, "", err
	}
	req.Header.Set("Connection", "Upgrade")
	req.Header.Set("Upgrade", protocol.UpgradePTTH)
	req.Header.Set(protocol.HeaderALPN, protocol.FormatALPN(alpn...))
	policy.SetPolicy(req.Header)
	conn, err = d.dial(ctx, func(x *exchange) (net.Conn, error) {
		x.refused = refusedPTTH
		resp, err := x.RoundTrip(req)
		if err != nil {
			return nil, err
		}
		if chosen, err = chosenALPN(resp, alpn); err != nil {
			return nil, x.broken(resp.StatusCode, err)
		}
		if err := policy.Enforced(protocol.ConfirmedPolicy(resp.Header)); err != nil {
			return nil, err
		}
		KeepAlive(x.conn) // HTTP/1.1 has no PING
		return x.conn, nil
	})
	return conn, chosen, err
}

// chosenALPN is what a 101 says that is spoken. A proxy that says nothing where there
// was no choice is understood.
func chosenALPN(resp *http.Response, offered []string) (string, error) {
	values := resp.Header.Values(protocol.HeaderALPN)
	if len(values) == 0 && len(offered) == 1 {
		return offered[0], nil
	}
	chosen, err := protocol.ParseALPN(values)
	if err != nil || len(chosen) != 1 || !slices.Contains(offered, chosen[0]) {
		return "", fmt.Errorf("it chose ALPN %q, which was not offered: this is no proxy for PTTH, check --server", printable(strings.Join(values, ", ")))
	}
	return chosen[0], nil
}

// refusedPTTH is what an answer of a proxy says that is not ours. The draft leaves the
// body open; most write a JSON object or a line.
func refusedPTTH(resp *http.Response, body []byte) *protocol.Error {
	e := &protocol.Error{Message: "it answered " + statusText(resp.StatusCode)}
	switch resp.StatusCode {
	case http.StatusUnauthorized:
		e.Code, e.Hint = protocol.Unauthorized, "pass the proxy's token with --token-file or TUNNEL_TOKEN"
	case http.StatusForbidden:
		e.Code, e.Hint = protocol.Forbidden, "the proxy does not let this token serve the origin: check --origin"
	case http.StatusConflict:
		e.Code, e.Hint = protocol.NameTaken, "another serves the origin"
	case http.StatusNotAcceptable:
		e.Code = protocol.ALPNUnsupported
	case http.StatusBadRequest:
		e.Code = protocol.BadRequest
	default:
		return nil
	}
	var said struct {
		Title, Detail, Message string // RFC 9457, and what others do
	}
	if json.Unmarshal(body, &said) == nil {
		for _, text := range []string{said.Detail, said.Title, said.Message} {
			if text != "" {
				e.Message += ": " + printable(text)
				break
			}
		}
	}
	return e
}
