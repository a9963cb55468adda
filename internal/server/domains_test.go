package server_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/revtun/tunnel/internal/auth"
	"github.com/revtun/tunnel/internal/rig/poll"
	"github.com/revtun/tunnel/internal/server"
	"github.com/revtun/tunnel/pkg/protocol"
)

// zone is a Resolver.
type zone struct {
	mu    sync.Mutex // guards the following
	txt   map[string][]string
	err   error // of each lookup
	asked []string
}

func (z *zone) LookupTXT(_ context.Context, name string) ([]string, error) {
	z.mu.Lock()
	defer z.mu.Unlock()
	z.asked = append(z.asked, name)
	if z.err != nil {
		return nil, z.err
	}
	if records, ok := z.txt[name]; ok {
		return records, nil
	}
	return nil, &net.DNSError{Err: "no such host", Name: name, IsNotFound: true}
}

// set changes what z answers.
func (z *zone) set(err error, name string, records ...string) {
	z.mu.Lock()
	defer z.mu.Unlock()
	if z.txt == nil {
		z.txt = make(map[string][]string)
	}
	z.err, z.txt[name] = err, records
}

func (z *zone) lookups() int {
	z.mu.Lock()
	defer z.mu.Unlock()
	return len(z.asked)
}

// idOf is what the server calls who shows token.
func idOf(t *testing.T, token string) string {
	t.Helper()
	id, err := auth.Anonymous{}.Authenticate(token, "")
	if err != nil {
		t.Fatal(err)
	}
	return id.ID
}

// domains is a server at tunnel.test with ann, who has rights, and bob, who has
// none; write changes the token file.
func domains(t *testing.T, c server.Config, rights string) (n *node, write func(content string)) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "tokens")
	c.Auth = tokens(t, path, "token-of-ann "+rights+"\ntoken-of-bob\n")
	c.Domain = "tunnel.test"
	return start(t, c), func(content string) {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// claim binds name with domains.
func (c *client) claim(name string, domains ...string) *protocol.Bound {
	c.t.Helper()
	c.send(&protocol.Message{Bind: &protocol.Bind{ID: 7, Name: name, Domains: domains}})
	m := c.read()
	if m.Bound == nil {
		c.t.Fatalf("no answer to bind but %+v", m)
	}
	return m.Bound
}

func (c *client) refused(b *protocol.Bound, want protocol.Code) *protocol.Error {
	c.t.Helper()
	if b.Error == nil || b.Error.Code != want || b.URL != "" || len(b.URLs) > 0 {
		c.t.Fatalf("got %+v, want %s", b, want)
	}
	return b.Error
}

// leads fails unless host is answered so: by an app, or with a code.
func (n *node) leads(host, want string) {
	n.t.Helper()
	res, body := n.get(host, "/")
	got := body
	if e := res.Header.Get(protocol.HeaderError); e != "" {
		got = e
	}
	if got != want {
		n.t.Errorf("%s leads to %q, want %q", host, got, want)
	}
}

// A token's rights claim a domain, and its host in each spelling leads to the
// client, which is one route to it.
func TestDomainByRight(t *testing.T) {
	public, _ := url.Parse("https://tunnel.test:8443")
	z := &zone{}
	n, _ := domains(t, server.Config{Resolver: z, PublicURL: public}, "domain=app.example.org,*.example.net")
	ann := n.connect("", "token-of-ann", "")
	b := ann.must(ann.claim("demo", "app.example.org", "a.example.net"))
	if want := []string{"https://app.example.org:8443", "https://a.example.net:8443"}; !slices.Equal(b.URLs, want) || b.URL != "https://demo.tunnel.test:8443" {
		t.Errorf("%+v", b)
	}
	ann.serve("ann")
	for host, want := range map[string]string{
		"demo.tunnel.test": "ann", "app.example.org": "ann", "App.Example.ORG.": "ann", "app.example.org:99": "ann", "a.example.net": "ann",
		"x.app.example.org": "wrong_host", "example.org": "wrong_host", "b.example.net": "wrong_host", "app.example.org.tunnel.test": "wrong_host", "app.tunnel.test": "name_unknown",
	} {
		n.leads(host, want)
	}
	if z.lookups() != 0 {
		t.Errorf("looked up %v", z.asked)
	}
	ann.must(ann.claim("other")) // now the route is named
	n.leads("app.example.org", "anndemo")
	n.leads("demo.tunnel.test", "anndemo")

	// They go with their name, and alone.
	ann.send(&protocol.Message{Unbind: &protocol.Unbind{Name: "a.example.net"}})
	poll.Until(t, "the domain is nobody's", func() bool {
		res, _ := n.get("a.example.net", "/")
		return res.Header.Get(protocol.HeaderError) == string(protocol.WrongHost)
	})
	n.leads("app.example.org", "anndemo")
	ann.send(&protocol.Message{Unbind: &protocol.Unbind{Name: "demo"}})
	ann.must(ann.claim("fourth", "a.example.net"))
	n.leads("app.example.org", "wrong_host")
	n.leads("demo.tunnel.test", "name_unknown")
	n.leads("a.example.net", "annfourth")
}

// A domain that went from one name to another goes with that one.
func TestDomainChangesName(t *testing.T) {
	n, _ := domains(t, server.Config{}, "domain=app.example.org")
	ann := n.connect("", "token-of-ann", "")
	ann.must(ann.claim("first", "app.example.org"))
	ann.serve("ann")
	ann.send(&protocol.Message{Unbind: &protocol.Unbind{Name: "app.example.org"}})
	ann.must(ann.claim("second", "app.example.org"))
	ann.send(&protocol.Message{Unbind: &protocol.Unbind{Name: "first"}})
	ann.must(ann.claim("third"))
	n.leads("app.example.org", "annsecond")
}

// S11, S13: without the right, a domain is for who has its record; and the refusal
// names the record.
func TestDomainByRecord(t *testing.T) {
	z := &zone{}
	n, _ := domains(t, server.Config{Resolver: z}, "domain=anns.example.org")
	bob := n.connect("", "token-of-bob", "")
	e := bob.refused(bob.claim("demo", "app.example.org"), protocol.Forbidden)
	if record := fmt.Sprintf("_tunnel.app.example.org. TXT %q", idOf(t, "token-of-bob")); !strings.Contains(e.Hint, record) {
		t.Errorf("the hint is %q, and lacks %s", e.Hint, record)
	}
	n.leads("demo.tunnel.test", "name_unknown") // all or nothing
	n.leads("app.example.org", "wrong_host")
	for _, records := range [][]string{
		nil, {""}, {"token:"}, {"*"}, {idOf(t, "token-of-ann")}, {idOf(t, "token-of-bob") + "0"}, {"x " + idOf(t, "token-of-bob")}, {strings.ToUpper(idOf(t, "token-of-bob"))},
	} {
		z.set(nil, "_tunnel.app.example.org.", records...)
		bob.refused(bob.claim("demo", "app.example.org"), protocol.Forbidden)
	}
	z.set(nil, "_tunnel.example.org.", idOf(t, "token-of-bob")) // of its parent alone
	bob.refused(bob.claim("demo", "app.example.org"), protocol.Forbidden)
	bob.refused(bob.claim("demo", "anns.example.org"), protocol.Forbidden)

	z.set(nil, "_tunnel.app.example.org.", "v=spf1 -all", " "+idOf(t, "token-of-bob")+" ", idOf(t, "token-of-ann"))
	bob.must(bob.claim("demo", "app.example.org"))
	bob.serve("bob")
	n.leads("app.example.org", "bob")
	// Ann may have it, too, by her record, but it is taken.
	ann := n.connect("", "token-of-ann", "")
	ann.refused(ann.claim("anns", "app.example.org"), protocol.NameTaken)
	n.leads("anns.tunnel.test", "name_unknown")
	for _, name := range z.asked {
		if !strings.HasPrefix(name, "_tunnel.") || !strings.HasSuffix(name, ".") {
			t.Errorf("asked for %s", name) // a search list would add to it
		}
	}
	// Nobody without a token is who a record could name.
	open := start(t, server.Config{Domain: "tunnel.test", Resolver: z})
	nobody := open.connect("", "", "")
	before := z.lookups()
	if e := nobody.refused(nobody.claim("demo", "app.example.org"), protocol.Forbidden); !strings.Contains(e.Hint, "TUNNEL_TOKEN") || z.lookups() > before {
		t.Errorf("%v, after %d lookups", e, z.lookups()-before)
	}
	anybody := open.connect("", "token-of-bob", "")
	anybody.must(anybody.claim("demo", "app.example.org"))
}

// What is no custom domain is refused, whatever the rights and records say.
func TestDomainsRefused(t *testing.T) {
	public, _ := url.Parse("https://Public.example.com")
	z := &zone{}
	n, write := domains(t, server.Config{Resolver: z, PublicURL: public}, "")
	all := []string{
		"tunnel.test", "demo.tunnel.test", "a.b.tunnel.test", "public.example.com", "localhost", "app.localhost", "org", "127.0.0.1", "1.2.3.4", "::1", "0x7f.1",
		"App.example.org", "app.example.org.", "*.example.org", "app_1.example.org", "b\u00fccher.example", "tcp/20001", "private/db", "", "demo", "app.example.org:80", "_tunnel.example.org",
	}
	for _, domain := range all {
		z.set(nil, "_tunnel."+domain+".", idOf(t, "token-of-ann"))
	}
	write("token-of-ann domain=*.tunnel.test,tunnel.test,public.example.com,*.example.com\n")
	ann := n.connect("", "token-of-ann", "")
	for _, domain := range all {
		ann.refused(ann.claim("demo", domain), protocol.DomainInvalid)
	}
	if z.lookups() > 0 {
		t.Errorf("looked up %q", z.asked)
	}
	ann.must(ann.claim("demo", "other.example.com"))
	// A domain is none of what has no host name.
	for _, b := range []*protocol.Bind{{Name: "x", Kind: protocol.KindTCP}, {Name: "x", Kind: protocol.KindUDP}, {Name: "x", Private: true}} {
		b.Domains = []string{"third.example.com"}
		ann.send(&protocol.Message{Bind: b})
		if m := ann.read(); m.Bound == nil || m.Bound.Error == nil || m.Bound.Error.Code != protocol.DomainInvalid {
			t.Errorf("%+v: %+v", b, m.Bound)
		}
	}
}

// S11: the names below the server's domain are a matter of rights, too, for each
// kind of route.
func TestNamesByRight(t *testing.T) {
	n, write := domains(t, server.Config{TCPPorts: server.Ports{First: 1, Last: 1}}, "name=demo,pr-*")
	ann := n.connect("", "token-of-ann", "")
	if e := ann.refused(ann.claim("other"), protocol.Forbidden); !strings.Contains(e.Hint, "demo, pr-*") {
		t.Errorf("%v", e)
	}
	ann.refused(ann.claim(""), protocol.Forbidden)
	ann.send(&protocol.Message{Bind: &protocol.Bind{Name: "other", Kind: protocol.KindTCP}})
	if m := ann.read(); m.Bound == nil || m.Bound.Error == nil || m.Bound.Error.Code != protocol.Forbidden {
		t.Errorf("a port by the name: %+v", m.Bound)
	}
	ann.must(ann.claim("demo"))
	ann.must(ann.claim("pr-17"))
	bob := n.connect("", "token-of-bob", "")
	bob.must(bob.claim(""))
	// Each claim is held to the rights of its moment.
	write("token-of-ann name=demo,pr-*,late\ntoken-of-bob\n")
	ann.must(ann.claim("late"))
}

// Rights that are taken away end what they made, as a token that is taken away does.
func TestRightsTakenAway(t *testing.T) {
	z := &zone{}
	z.set(nil, "_tunnel.proven.example.org.", idOf(t, "token-of-ann"))
	for name, c := range map[string]struct {
		name, domain, left string
		ends               bool
	}{
		"domain":               {"demo", "app.example.org", "", true},
		"another's domain":     {"demo", "app.example.org", "domain=app.example.org,other.example.org", false},
		"name":                 {"demo", "", "domain=app.example.org name=other", true},
		"domain by its record": {"demo", "proven.example.org", "", false},
	} {
		t.Run(name, func(t *testing.T) {
			n, write := domains(t, server.Config{Resolver: z, Hold: time.Hour}, "domain=app.example.org")
			ann := n.connect("", "token-of-ann", "")
			var list []string
			if c.domain != "" {
				list = append(list, c.domain)
			}
			ann.must(ann.claim(c.name, list...))
			write("token-of-ann " + c.left + "\ntoken-of-bob\ntoken-of-eve\n")
			gone := "token-of-eve"
			eve := n.connect("", gone, "")
			write("token-of-ann " + c.left + "\ntoken-of-bob\n")
			if m := eve.read(); m.Bye == nil { // so the file was looked at
				t.Fatalf("eve reads %+v", m)
			}
			if !c.ends {
				ann.must(ann.claim("more"))
				return
			}
			m := ann.read()
			if m.Bye == nil || m.Bye.Error == nil || m.Bye.Error.Code != protocol.SessionFenced {
				t.Fatalf("ann reads %+v", m)
			}
			n.leads("demo.tunnel.test", "name_unknown")
			n.leads("app.example.org", "wrong_host")
			again := n.connect("", "token-of-ann", "") // and learns why
			again.refused(again.claim(c.name, list...), protocol.Forbidden)
		})
	}
}

// A client that reconnects has its domain with its name, which nobody else could
// have meanwhile, also where the name servers are away then.
func TestDomainOnReconnect(t *testing.T) {
	z := &zone{}
	for _, token := range []string{"token-of-ann", "token-of-bob"} {
		z.set(nil, "_tunnel.app.example.org.", append(z.txt["_tunnel.app.example.org."], idOf(t, token))...)
	}
	n, _ := domains(t, server.Config{Resolver: z, Hold: time.Hour}, "")
	ann := n.connect("", "token-of-ann", "")
	ann.must(ann.claim("demo", "app.example.org"))
	ann.mux.Close()
	poll.Until(t, "the client is away", func() bool {
		res, _ := n.get("app.example.org", "/")
		return res.Header.Get(protocol.HeaderError) == string(protocol.ClientOffline)
	})
	bob := n.connect("", "token-of-bob", "")
	bob.refused(bob.claim("bobs", "app.example.org"), protocol.NameTaken)
	z.set(errors.New("no name server answers"), "")
	back := n.connect(ann.id, "token-of-ann", ann.welcome.Resume)
	back.must(back.claim("demo", "app.example.org"))
	back.serve("ann")
	n.leads("app.example.org", "ann")
	// A domain that was never seen cannot be told.
	back.refused(back.claim("more", "new.example.org"), protocol.DomainUnverified)
	// An end by bye frees both.
	back.send(&protocol.Message{Bye: &protocol.Bye{}})
	back.read()
	n.leads("app.example.org", "wrong_host")
}

// A session whose connection is renewed keeps its domains without a gap, and none of
// them is left behind.
func TestDomainsMove(t *testing.T) {
	n, _ := domains(t, server.Config{MaxStreams: 3, Hold: time.Hour}, "domain=app.example.org")
	ann := n.connect("", "token-of-ann", "")
	ann.must(ann.claim("demo", "app.example.org"))
	ann.serve("old")
	for range 3 {
		n.leads("app.example.org", "old")
	}
	next := n.connect(ann.id, "token-of-ann", ann.welcome.Resume)
	next.must(next.claim("demo", "app.example.org"))
	next.serve("new")
	n.leads("app.example.org", "new")
	n.leads("demo.tunnel.test", "new")
}

// Domains count as names, and lookups are bounded.
func TestDomainLimits(t *testing.T) {
	z := &zone{}
	n, _ := domains(t, server.Config{Resolver: z, MaxNames: 3}, "domain=*.example.org")
	ann := n.connect("", "token-of-ann", "")
	ann.refused(ann.claim("demo", "a.example.org", "b.example.org", "c.example.org"), protocol.TooManyNames)
	ann.refused(ann.claim("demo", "a.example.org", "b.example.org", "c.example.org", "d.example.org"), protocol.TooManyNames)
	n.leads("a.example.org", "wrong_host")
	n.leads("demo.tunnel.test", "name_unknown")
	ann.refused(ann.claim("demo", "a.example.org", "a.example.org"), protocol.NameTaken)
	ann.must(ann.claim("demo", "a.example.org", "b.example.org"))
	ann.refused(ann.claim("more"), protocol.TooManyNames)

	bob := n.connect("", "token-of-bob", "")
	for i := range 20 {
		bob.refused(bob.claim("bobs", fmt.Sprintf("n%d.example.net", i)), protocol.Forbidden)
	}
	for range 5 {
		bob.refused(bob.claim("bobs", "more.example.net"), protocol.DomainUnverified)
	}
	if got := z.lookups(); got != 20 {
		t.Errorf("%d lookups, want 20", got)
	}
}

// A name server that does not answer holds up nobody's end: the lookup ends with
// the session.
func TestLookupEndsWithTheSession(t *testing.T) {
	r := silent{asked: make(chan struct{}), ended: make(chan struct{})}
	n, _ := domains(t, server.Config{Resolver: r}, "")
	bob := n.connect("", "token-of-bob", "")
	bob.send(&protocol.Message{Bind: &protocol.Bind{Name: "demo", Domains: []string{"app.example.org"}}})
	<-r.asked
	bob.mux.Close()
	select {
	case <-r.ended:
	case <-time.After(20 * time.Second):
		t.Error("the lookup did not end with the session")
	}
}

// silent is a Resolver that answers nothing.
type silent struct{ asked, ended chan struct{} }

func (s silent) LookupTXT(ctx context.Context, _ string) ([]string, error) {
	close(s.asked)
	<-ctx.Done()
	if time.Until(deadline(ctx)) > 0 {
		close(s.ended) // not because the time was over
	}
	return nil, ctx.Err()
}

func deadline(ctx context.Context) time.Time {
	d, _ := ctx.Deadline()
	return d
}

// The names that the server answers by itself are nobody's where names are paths.
func TestPathNamesOfTheServer(t *testing.T) {
	public, _ := url.Parse("https://public.example.com:8443")
	n := start(t, server.Config{Domain: "tunnel.test", PathNames: true, PublicURL: public})
	c := n.connect("", "a-token-of-8", "")
	for _, name := range []string{"healthz", "readyz"} {
		c.refused(c.claim(name), protocol.NameTaken)
	}
	if b := c.must(c.claim("demo")); b.URL != "https://public.example.com:8443/demo/" {
		t.Errorf("%+v", b)
	}
	c.serve("app")
	for host, want := range map[string]string{"tunnel.test": "app", "public.example.com": "app", "127.0.0.1": "app"} {
		if _, body := n.get(host, "/demo/"); body != want {
			t.Errorf("%s/demo/ is %q", host, body)
		}
	}
	n.leads("demo.tunnel.test", "app")
	plain := start(t, server.Config{})
	c = plain.connect("", "", "")
	c.must(c.claim("healthz"))
	c.serve("app")
	plain.leads("healthz.localhost", "app")
	if res, _ := plain.get("localhost", "/healthz/"); res.StatusCode != 404 {
		t.Errorf("/healthz/ is %d", res.StatusCode)
	}
}
