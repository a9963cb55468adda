package doctor

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"github.com/revtun/tunnel/internal/forward"
)

// maxHead bounds what is read of the app's answer, in bytes.
const maxHead = 1 << 20

// app looks whether the local app is there and speaks what the target says.
func (v *visit) app(ctx context.Context) {
	if v.App == nil {
		v.show(Step{Name: App, Verdict: Skip, Detail: "no TARGET was named"})
		return
	}
	ctx, cancel := context.WithTimeout(ctx, stepTime)
	defer cancel()
	start := time.Now()
	s := v.look(ctx, *v.App)
	s.Name, s.Took = App, time.Since(start)
	v.show(s)
}

func (v *visit) look(ctx context.Context, t forward.Target) Step {
	conn, err := connect(ctx, t)
	if err != nil {
		return Step{Verdict: Fail, Detail: t.String() + " cannot be reached: " + short(err), Hint: "start the app, or correct TARGET"}
	}
	conn.Close()
	if t.Scheme == "tcp" {
		return Step{Verdict: OK, Detail: t.String() + " takes connections"}
	}
	res, err := v.ask(ctx, t)
	var plain tls.RecordHeaderError
	var unverified *tls.CertificateVerificationError
	switch {
	case errors.As(err, &plain):
		return Step{Verdict: Fail, Detail: t.String() + " does not speak TLS", Hint: "name it as http://" + t.Host}
	case errors.As(err, &unverified):
		return Step{Verdict: Fail, Detail: "the certificate of " + t.String() + " is not trusted: " + unverified.Err.Error(),
			Hint: "--insecure-upstream accepts it"}
	case (err != nil || res.StatusCode == http.StatusBadRequest) && t.Scheme != "https" && speaksTLS(ctx, t):
		return Step{Verdict: Fail, Detail: t.String() + " speaks TLS", Hint: "name it as https://" + t.Host}
	case err != nil:
		return Step{Verdict: Fail, Detail: t.String() + " gives no answer of HTTP: " + err.Error(), Hint: "look into the app's log, and whether TARGET is the app's port"}
	case res.StatusCode >= http.StatusInternalServerError:
		return Step{Verdict: Warn, Detail: fmt.Sprintf("%s answers GET / with %d %s", t, res.StatusCode, http.StatusText(res.StatusCode)), Hint: "look into the app's log"}
	}
	return Step{Verdict: OK, Detail: fmt.Sprintf("%s answers GET / with %d %s", t, res.StatusCode, http.StatusText(res.StatusCode))}
}

// ask is a request as the tunnel makes it. Of the answer the head counts.
func (v *visit) ask(ctx context.Context, t forward.Target) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, t.OriginScheme()+"://"+t.Host+"/", nil)
	if err != nil {
		return nil, err
	}
	req.Close = true
	req.Header.Set("User-Agent", v.Client.Agent)
	if t.Scheme == "h2c" {
		return askHTTP2(req, t)
	}
	conn, err := connect(ctx, t)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	if t.Scheme == "https" {
		secured := tls.Client(conn, &tls.Config{ServerName: req.URL.Hostname(), InsecureSkipVerify: v.Insecure})
		if err := secured.HandshakeContext(ctx); err != nil {
			return nil, err
		}
		conn = secured
	}
	if err := req.Write(conn); err != nil {
		return nil, err
	}
	return http.ReadResponse(bufio.NewReader(io.LimitReader(conn, maxHead)), req)
}

func askHTTP2(req *http.Request, t forward.Target) (*http.Response, error) {
	way := &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return connect(ctx, t) },
		Protocols:   new(http.Protocols),
	}
	way.Protocols.SetUnencryptedHTTP2(true)
	defer way.CloseIdleConnections()
	res, err := way.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	return res, res.Body.Close()
}

func connect(ctx context.Context, t forward.Target) (net.Conn, error) {
	return (&net.Dialer{Timeout: stepTime}).DialContext(ctx, t.Network, t.Addr)
}

// speaksTLS reports whether the app answers a handshake, with whatever certificate.
func speaksTLS(ctx context.Context, t forward.Target) bool {
	conn, err := connect(ctx, t)
	if err != nil {
		return false
	}
	defer conn.Close()
	return tls.Client(conn, &tls.Config{InsecureSkipVerify: true}).HandshakeContext(ctx) == nil
}
