package edge_test

import (
	"errors"
	"io"
	"net"
	"net/http"
	"strconv"
	"testing"
	"time"

	"github.com/summerwind/h2spec/config"
	"github.com/summerwind/h2spec/generic"
	"github.com/summerwind/h2spec/hpack"
	h2 "github.com/summerwind/h2spec/http2"
	"github.com/summerwind/h2spec/spec"

	"github.com/revtun/tunnel/internal/edge"
	"github.com/revtun/tunnel/internal/rig"
	"github.com/revtun/tunnel/internal/rig/poll"
)

// The edge is conformant to HTTP/2 over TLS (RFC 9113) as h2spec sees it, with its
// strict cases.
func TestH2Spec(t *testing.T) {
	h := &edge.HTTP{Domain: "example.com", MaxHeader: 64 << 10, MaxURI: 16 << 10, Gate: new(edge.Gate)}
	h.Own = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		io.WriteString(w, "a body of more than a few bytes")
	})
	certificate := rig.NewCertificate(t, "example.com")
	limits := edge.Limits{HeaderTimeout: patience, IdleTimeout: patience}
	door := &edge.Door{Limits: limits, GetCertificate: certificate.Get}
	l := loopback(t)
	s := h.Server(limits)
	served := make(chan error, 1)
	go func() { served <- s.Serve(door.Listener(h.Gate.Listener(l))) }()
	t.Cleanup(func() {
		// net/http stays for a second after it has refused a frame.
		poll.Until(t, "the end of all connections", func() bool { return edge.Conns(h.Gate) == 0 })
		s.Close()
		<-served
	})
	_, port, _ := net.SplitHostPort(l.Addr().String())
	// Five such fields are more than a frame may have here.
	c := &config.Config{Host: "127.0.0.1", Path: "/", Timeout: patience, MaxHeaderLen: 16_000, Strict: true, TLS: true, Insecure: true}
	c.Port, _ = strconv.Atoi(port)
	ran := 0
	for _, group := range []*spec.TestGroup{generic.Spec(), h2.Spec(), hpack.Spec()} {
		ran += conform(t, c, group)
	}
	if ran < 140 {
		t.Errorf("%d cases ran", ran)
	}
}

// waived are the cases that are not held to, and why.
func waived() map[string]string {
	const malformed = "net/http answers 400 to what is malformed, which RFC 9113, section 8.1.1 allows, and no stream error; the app does not see it"
	return map[string]string{
		"http2/8.1.2.2/1": malformed,
		"http2/8.1.2.2/2": malformed,
		"http2/6.5.3/1":   "net/http ends a connection that gives one setting twice: it costs work for nothing",
	}
}

// conform runs the cases of a group and of those within it.
func conform(t *testing.T, c *config.Config, group *spec.TestGroup) (ran int) {
	for i, one := range append(group.Tests, group.StrictTests...) {
		id := group.ID() + "/" + strconv.Itoa(i+1)
		ran++
		t.Run(id, func(t *testing.T) {
			t.Parallel()
			if why := waived()[id]; why != "" {
				t.Skip(why)
			}
			began := time.Now()
			conn, err := spec.Dial(c)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			if err := one.Run(c, conn); err != nil && !errors.Is(err, spec.ErrSkipped) {
				t.Errorf("%s\n%s\n%v, after %v", one.Desc, one.Requirement, err, time.Since(began))
			}
		})
	}
	for _, within := range group.Groups {
		ran += conform(t, c, within)
	}
	return ran
}
