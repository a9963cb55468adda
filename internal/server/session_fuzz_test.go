package server_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/revtun/tunnel/internal/auth"
	"github.com/revtun/tunnel/internal/registry"
	"github.com/revtun/tunnel/internal/server"
	"github.com/revtun/tunnel/pkg/protocol"
)

// Of the session that is fuzzed.
const (
	fuzzNames   = 3  // may be claimed
	barrierID   = 77 // of a bind whose answer says that all before it was read
	barrierKind = "none"
)

// FuzzSession lets a client write anything to its control stream, with a hello
// before it or without: a well-formed bind has one answer, in its order; what is
// claimed is what the answers say, and gone with the session; whatever breaks the
// protocol ends the session with a reason, and no other (R29, S10).
func FuzzSession(f *testing.F) {
	for _, in := range controlSeeds() {
		f.Add([]byte(in), true)
		f.Add([]byte(message(`{"hello":{"versions":[1]}}`)+in), false)
		f.Add([]byte(in), false)
	}
	names := &registry.Memory{}
	s, err := server.New(server.Config{Listen: "127.0.0.1:0", Auth: landlord{}, Registry: names, MaxNames: fuzzNames})
	if err != nil {
		f.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	f.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			f.Error(err)
		}
	})
	f.Fuzz(func(t *testing.T, in []byte, hello bool) {
		n := &node{t: t, addr: s.Addr().String()}
		neighbour := n.connect("", "", "")
		neighbour.must(neighbour.bind("neighbour"))
		c, err := n.dial("", "")
		if err != nil {
			t.Fatal(err)
		}
		if hello {
			in = append([]byte(message(`{"hello":{"versions":[1]}}`)), in...)
		}
		talk := &conversation{t: t, c: c, names: names, in: in, has: make(map[string]string)}
		talk.hold()
		c.mux.Close()
		leave(t, names, "neighbour")
		if b := neighbour.bind("neighbour"); b.Error == nil { // it lives, and has its name
			t.Errorf("the neighbour lost its name after %q", in)
		}
		neighbour.mux.Close()
		leave(t, names)
	})
}

// landlord lets everyone have domains below example.org.
type landlord struct{ auth.Anonymous }

func (landlord) Rights(auth.Identity) auth.Rights {
	return auth.Rights{Names: []string{"*"}, Domains: []string{"*.example.org"}}
}

// message is a control message with its length.
func message(body string) string {
	return string(binary.BigEndian.AppendUint32(nil, uint32(len(body)))) + body
}

func controlSeeds() (seeds []string) {
	bind := message(`{"bind":{"id":1,"name":"demo"}}`)
	for _, bodies := range [][]string{
		{}, {`{"bind":{"id":1}}`}, {`{"bind":{"id":1,"kind":"http","name":"demo","upstream":{"scheme":"http","host":"localhost:3000"}}}`},
		{`{"bind":{"id":-1,"name":"a"}}`, `{"bind":{"id":-1,"name":"a"}}`, `{"unbind":{"name":"a"}}`, `{"bind":{"id":5,"name":"a"}}`},
		{`{"bind":{"name":"a"}}`, `{"bind":{"name":"b"}}`, `{"bind":{"name":"c"}}`, `{"bind":{"name":"d"}}`, `{"unbind":{"name":"neighbour"}}`},
		{`{"bind":{"name":"neighbour"}}`, `{"bind":{"name":"-"}}`, `{"bind":{"name":"x","kind":"tcp"}}`, `{"bind":{"name":"x","upstream":{"scheme":"http","host":"a\r\nb"}}}`},
		{`{"bind":{"name":"a"}}`, `{"drain":{}}`, `{"drain":{"reason":"x"}}`, `{"bind":{"name":"b"}}`}, {`{"bind":{"name":"a"}}`, `{"bye":{}}`, `{"bind":{"name":"b"}}`},
		{`{"hello":{"versions":[2,1]}}`}, {`{"hello":{"versions":[7]}}`}, {`{"hello":{}}`}, {`{"dance":1}`, `{}`, `null`}, {`{"welcome":{},"bound":{},"drained":{}}`},
		{`{"bind":{"name":"a","domains":["a.example.org","b.example.org"]}}`, `{"unbind":{"name":"b.example.org"}}`, `{"bind":{"name":"c"}}`, `{"unbind":{"name":"a"}}`},
		{`{"bind":{"name":"a","domains":["a.example.org"]}}`, `{"unbind":{"name":"a.example.org"}}`, `{"unbind":{"name":"b"}}`, `{"bind":{"name":"b","domains":["a.example.org"]}}`, `{"unbind":{"name":"a"}}`},
		{`{"bind":{"name":"a","domains":["a.example.org","a.example.org"]}}`, `{"bind":{"name":"a","domains":["a.b.example.org"]}}`, `{"bind":{"name":"a","domains":["a.example.org","b.example.org","c.example.org"]}}`, `{"bind":{"domains":["neighbour"]}}`},
		{`[]`}, {`{"bind":[]}`}, {`{"bind":{"id":1e99}}`}, {`{`}, {``},
	} {
		var all strings.Builder
		for _, body := range bodies {
			all.WriteString(message(body))
		}
		seeds = append(seeds, all.String())
	}
	return append(seeds, "\xff\xff\xff\xff", "\x00\x01\x00\x01", bind[:2], bind[:9], bind+bind[:9])
}

// leave waits until no names but those that stay are claimed. Thousands of inputs
// have no time for the pauses of poll.Until.
func leave(t *testing.T, names registry.Registry, stay ...string) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !slices.Equal(claimed(t, names), stay); time.Sleep(50 * time.Microsecond) {
		if time.Now().After(end) {
			t.Fatalf("%q are claimed, want %q", claimed(t, names), stay)
		}
	}
}

func claimed(t *testing.T, names registry.Registry) (all []string) {
	t.Helper()
	list, err := names.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, one := range list {
		all = append(all, one.Name)
	}
	return all
}

// conversation checks the server's side of one control stream.
type conversation struct {
	t       *testing.T
	c       *client
	names   registry.Registry
	in      []byte
	has     map[string]string // the names and domains that were granted; of a domain, beside which name
	drained bool              // nothing is granted any more
}

// hold writes all of in, and follows what comes back.
func (v *conversation) hold() {
	v.t.Helper()
	// What the server makes of it is told by the same parser: that one has a fuzz
	// target of its own.
	var sent []*protocol.Message
	r, valid := bytes.NewReader(v.in), true
	for {
		m, err := protocol.Read(r)
		if err != nil {
			valid = err == io.EOF
			break
		}
		sent = append(sent, m)
	}
	if valid {
		v.in = append(v.in, message(`{"bind":{"id":77,"kind":"`+barrierKind+`"}}`)...)
		sent = append(sent, &protocol.Message{Bind: &protocol.Bind{ID: barrierID, Kind: barrierKind}})
	}
	// It may end the session before all is written: the error says nothing.
	v.c.control.SetWriteDeadline(time.Now().Add(20 * time.Second))
	v.c.control.Write(v.in)
	if !valid {
		v.c.control.CloseWrite()
	}
	if !v.welcomed(sent) {
		v.bye(false)
		return
	}
	for _, m := range sent[1:] {
		switch {
		case m.Bind != nil:
			v.bound(m.Bind)
		case m.Unbind != nil:
			name := m.Unbind.Name
			maps.DeleteFunc(v.has, func(one, beside string) bool { return one == name || name != "" && beside == name })
		case m.Drain != nil:
			v.drained = true
			clear(v.has)
		case m.Bye != nil:
			v.bye(true)
			return
		}
	}
	if !valid {
		v.bye(false)
		return
	}
	granted := []string{"neighbour"}
	for name := range v.has {
		granted = append(granted, name)
	}
	slices.Sort(granted)
	if got := claimed(v.t, v.names); !slices.Equal(got, granted) {
		v.t.Errorf("after %q the names %q are claimed, want %q", v.in, got, granted)
	}
}

// welcomed reads the answer to the hello, and reports whether one is due.
func (v *conversation) welcomed(sent []*protocol.Message) bool {
	v.t.Helper()
	if len(sent) == 0 || sent[0].Hello == nil || !slices.Contains(sent[0].Hello.Versions, protocol.Version) {
		return false
	}
	if m := v.read(); m.Welcome == nil || m.Welcome.Version != protocol.Version || m.Welcome.Resumed || m.Welcome.Resume == "" {
		v.t.Fatalf("%q is answered with %+v, want a welcome", v.in, m)
	}
	return true
}

// read skips what may come at any time.
func (v *conversation) read() *protocol.Message {
	v.t.Helper()
	for {
		if m := v.c.read(); m.Drained == nil || !v.drained {
			return m
		}
	}
}

func (v *conversation) bound(asked *protocol.Bind) {
	v.t.Helper()
	m := v.read()
	if m.Bound == nil || m.Bound.ID != asked.ID {
		v.t.Fatalf("%q: bind %+v is answered with %+v", v.in, asked, m)
	}
	name := m.Bound.Name
	may := (asked.Kind == "" || asked.Kind == protocol.KindHTTP) && !v.drained && len(v.has)+len(asked.Domains) < fuzzNames && name != "neighbour" && !v.knows(name)
	for i, domain := range asked.Domains {
		label, ok := strings.CutSuffix(domain, ".example.org")
		may = may && ok && protocol.CheckName(label) == nil && !v.knows(domain) && !slices.Contains(asked.Domains[:i], domain) && !asked.Private
	}
	if m.Bound.Error != nil {
		if may && asked.Upstream == nil && (asked.Name == "" || protocol.CheckName(asked.Name) == nil) {
			v.t.Errorf("%q: bind %+v is refused: %v", v.in, asked, m.Bound.Error)
		}
		return
	}
	if !may || protocol.CheckName(name) != nil || asked.Name != "" && asked.Name != name || !strings.HasPrefix(m.Bound.URL, "http://"+name+".localhost:") {
		v.t.Errorf("%q: bind %+v is granted as %+v, beside %v", v.in, asked, m.Bound, v.has)
	}
	if u := asked.Upstream; u != nil && (u.Host == "" || strings.ContainsAny(u.Host, "\r\n \x00/@")) {
		v.t.Errorf("the upstream %q was taken", u.Host)
	}
	v.has[name] = ""
	for i, domain := range asked.Domains {
		v.has[domain] = name
		if len(m.Bound.URLs) != len(asked.Domains) || !strings.HasPrefix(m.Bound.URLs[i], "http://"+domain+":") {
			v.t.Errorf("%q: bind %+v is granted as %+v", v.in, asked, m.Bound)
		}
	}
}

func (v *conversation) knows(name string) bool {
	_, ok := v.has[name]
	return ok
}

// bye reads the end of a session: normal where the client said so.
func (v *conversation) bye(normal bool) {
	v.t.Helper()
	m := v.read()
	if m.Bye == nil || normal != (m.Bye.Error == nil) {
		v.t.Fatalf("%q: the session ends with %+v", v.in, m)
	}
	clear(v.has)
}
