package doctor

import (
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/revtun/tunnel/internal/forward"
	"github.com/revtun/tunnel/internal/rig"
)

func TestApp(t *testing.T) {
	answer := func(status int) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(status) })
	}
	plain, broken := httptest.NewServer(answer(200)), httptest.NewServer(answer(500))
	t.Cleanup(plain.Close)
	t.Cleanup(broken.Close)
	secured := httptest.NewUnstartedServer(answer(200))
	secured.Config.ErrorLog = log.New(io.Discard, "", 0)
	secured.StartTLS()
	t.Cleanup(secured.Close)
	h2c := httptest.NewUnstartedServer(answer(204))
	h2c.Config.Protocols = new(http.Protocols)
	h2c.Config.Protocols.SetUnencryptedHTTP2(true)
	h2c.Start()
	t.Cleanup(h2c.Close)
	ssh := "http://" + listen(t, nil, func(c net.Conn) { c.Write([]byte("SSH-2.0-x\r\n")); c.Read(make([]byte, 1024)) })
	for _, tt := range []struct {
		target   string
		insecure bool
		verdict  Verdict
		words    []string
	}{
		{plain.URL, false, OK, []string{"200 OK"}},
		{broken.URL, false, Warn, []string{"500", "log"}},
		{"http://" + rig.FreePort(t), false, Fail, []string{"connection refused", "start the app"}},
		{"http" + strings.TrimPrefix(secured.URL, "https"), false, Fail, []string{"speaks TLS", secured.URL}},
		{"https" + strings.TrimPrefix(plain.URL, "http"), false, Fail, []string{"does not speak TLS", plain.URL}},
		{secured.URL, false, Fail, []string{"not trusted", "--insecure-upstream"}},
		{secured.URL, true, OK, []string{"200 OK"}},
		{"h2c" + strings.TrimPrefix(h2c.URL, "http"), false, OK, []string{"204"}},
		{ssh, false, Fail, []string{"no answer of HTTP", "TARGET"}},
		{"tcp" + strings.TrimPrefix(ssh, "http"), false, OK, []string{"takes connections"}},
	} {
		parse := forward.ParseTarget
		if strings.HasPrefix(tt.target, "tcp") {
			parse = func(s string) (forward.Target, error) { return forward.ParseRawTarget(s, "tcp") }
		}
		app, err := parse(tt.target)
		if err != nil {
			t.Fatal(err)
		}
		d := direct("http://" + rig.FreePort(t)) // the app is looked at all the same
		d.App, d.Insecure = &app, tt.insecure
		examine(t, d).want(t, App, tt.verdict, tt.words...)
	}
}
