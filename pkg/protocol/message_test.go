package protocol

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"testing/iotest"
)

// samples has every message, with every field set.
func samples() map[string]*Message {
	e := &Error{Code: NameTaken, Message: `"demo" is taken`, Hint: "choose <another>"}
	return map[string]*Message{
		"hello":   {Hello: &Hello{Versions: []int{1, 2}, Agent: "tunnel-client/1.2.3", Resume: "secret", Connect: true}},
		"welcome": {Welcome: &Welcome{Version: 1, Agent: "tunnel-server/1.2.3", Resume: "secret", Resumed: true, Connect: true}},
		"bind":    {Bind: &Bind{ID: 7, Kind: KindHTTP, Name: "demo", Generation: 42, Port: 20001, Domains: []string{"app.example.org"}, Private: true, Upstream: &Upstream{Scheme: "https", Host: "localhost:8443"}, Visitor: true, Share: &Share{TTL: 7_200_000, Allow: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}, Response: &Edits{Remove: []string{"Server"}}}}},
		"bound":   {Bound: &Bound{ID: 7, Name: "demo", URL: "https://demo.example.com", Port: 20001, URLs: []string{"https://app.example.org"}, Enforced: []string{"ttl"}, Error: e}},
		"unbind":  {Unbind: &Unbind{Name: "demo"}},
		"drain":   {Drain: &Drain{Reason: "the server is shutting down"}},
		"drained": {Drained: &Drained{}},
		"bye":     {Bye: &Bye{Error: e}},
		"unknown": {},
	}
}

func TestRoundTrip(t *testing.T) {
	var all bytes.Buffer
	var sent []*Message
	for name, m := range samples() {
		var b bytes.Buffer
		if err := Write(&b, m); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		all.Write(b.Bytes())
		sent = append(sent, m)
		got, err := Read(&b)
		if err != nil || !reflect.DeepEqual(got, m) {
			t.Errorf("%s: read %+v, %v; want %+v", name, got, err, m)
		}
	}
	r := iotest.OneByteReader(&all)
	for i, m := range sent {
		if got, err := Read(r); err != nil || !reflect.DeepEqual(got, m) {
			t.Errorf("message %d in a row: read %+v, %v; want %+v", i, got, err, m)
		}
	}
	if _, err := Read(r); err != io.EOF {
		t.Errorf("behind the last message: %v, want io.EOF itself", err)
	}
}

// Samples is complete: a message that is added is tested.
func TestSamplesHaveEveryField(t *testing.T) {
	seen := make(map[int]bool)
	for name, m := range samples() {
		v := reflect.ValueOf(m).Elem()
		for i := range v.NumField() {
			if f := v.Field(i); !f.IsNil() {
				seen[i] = true
				for j := range f.Elem().NumField() {
					if f.Elem().Field(j).IsZero() {
						t.Errorf("%s: %s is not set", name, f.Elem().Type().Field(j).Name)
					}
				}
			}
		}
	}
	if n := reflect.TypeFor[Message]().NumField(); len(seen) != n {
		t.Errorf("%d of %d messages", len(seen), n)
	}
}

// The wire is what earlier versions wrote, and what was added since: another change
// here breaks those who have it.
func TestWire(t *testing.T) {
	for name, want := range map[string]string{
		"hello":   `{"hello":{"versions":[1,2],"agent":"tunnel-client/1.2.3","resume":"secret","connect":true}}`,
		"welcome": `{"welcome":{"version":1,"agent":"tunnel-server/1.2.3","resume":"secret","resumed":true,"connect":true}}`,
		"bind":    `{"bind":{"id":7,"kind":"http","name":"demo","generation":42,"port":20001,"domains":["app.example.org"],"private":true,"upstream":{"scheme":"https","host":"localhost:8443"},"visitor":true,"share":{"allow_cidr":["192.0.2.0/24"],"ttl":7200000,"response_headers":{"remove":["Server"]}}}}`,
		"bound":   `{"bound":{"id":7,"name":"demo","url":"https://demo.example.com","port":20001,"urls":["https://app.example.org"],"enforced":["ttl"],"error":{"code":"name_taken","message":"\"demo\" is taken","hint":"choose \u003canother\u003e"}}}`,
		"unbind":  `{"unbind":{"name":"demo"}}`,
		"drain":   `{"drain":{"reason":"the server is shutting down"}}`,
		"drained": `{"drained":{}}`,
		"bye":     `{"bye":{"error":{"code":"name_taken","message":"\"demo\" is taken","hint":"choose \u003canother\u003e"}}}`,
		"unknown": `{}`,
	} {
		var b bytes.Buffer
		if err := Write(&b, samples()[name]); err != nil {
			t.Fatal(err)
		}
		if got := b.String(); got != framed(want) {
			t.Errorf("%s: wrote %q, want %q", name, got, framed(want))
		}
	}
}

// framed puts the length before a body.
func framed(body string) string {
	return string(binary.BigEndian.AppendUint32(nil, uint32(len(body)))) + body
}

// What N+1 says is understood as far as it goes.
func TestReadUnknown(t *testing.T) {
	for body, want := range map[string]*Message{
		`{"teleport":{"to":"mars"}}`:                     {},
		`{"unbind":{"name":"demo","softly":true}}`:       {Unbind: &Unbind{Name: "demo"}},
		`{"drain":{},"later":1}`:                         {Drain: &Drain{}},
		`{"bind":{"id":1,"kind":"quic","name":"x"}}`:     {Bind: &Bind{ID: 1, Kind: "quic", Name: "x"}},
		`{"bye":{"error":{"code":"new","message":"m"}}}`: {Bye: &Bye{Error: &Error{Code: "new", Message: "m"}}},
		`null`: {},
	} {
		if got, err := Read(strings.NewReader(framed(body))); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: read %+v, %v; want %+v", body, got, err, want)
		}
	}
}

func TestReadErrors(t *testing.T) {
	violation := &Error{Code: ProtocolViolation}
	for name, test := range map[string]struct {
		in   string
		want error
	}{
		"nothing":             {"", io.EOF},
		"half a length":       {"\x00\x00", io.ErrUnexpectedEOF},
		"a length alone":      {"\x00\x00\x00\x02", io.ErrUnexpectedEOF},
		"half a body":         {"\x00\x00\x00\x02{", io.ErrUnexpectedEOF},
		"not JSON":            {framed("hello"), violation},
		"empty":               {framed(""), violation},
		"two values":          {framed("{}{}"), violation},
		"another type":        {framed(`{"hello":"hello"}`), violation},
		"a list":              {framed("[]"), violation},
		"one byte too many":   {framed(strings.Repeat(" ", MaxMessage+1)), violation},
		"4 GiB":               {"\xff\xff\xff\xff", violation},
		"HTTP":                {"HTTP/1.1 400 Bad Request\r\n\r\n", violation},
		"an ID that is large": {framed(`{"bind":{"id":1e99}}`), violation},
	} {
		t.Run(name, func(t *testing.T) {
			m, err := Read(strings.NewReader(test.in))
			if !errors.Is(err, test.want) || m != nil {
				t.Errorf("read %+v, %v; want %v", m, err, test.want)
			}
			if test.want == io.EOF && err != io.EOF {
				t.Errorf("%#v is not io.EOF itself", err)
			}
		})
	}
}

func TestMaxMessage(t *testing.T) {
	// A body of exactly the limit, and one more.
	fill := strings.Repeat("x", MaxMessage-len(`{"drain":{"reason":""}}`))
	var b bytes.Buffer
	if err := Write(&b, &Message{Drain: &Drain{Reason: fill}}); err != nil {
		t.Fatal(err)
	}
	if b.Len() != 4+MaxMessage {
		t.Errorf("wrote %d bytes", b.Len())
	}
	if m, err := Read(&b); err != nil || m.Drain.Reason != fill {
		t.Error(err)
	}
	b.Reset()
	if err := Write(&b, &Message{Drain: &Drain{Reason: fill + "x"}}); err == nil || b.Len() > 0 {
		t.Errorf("over the limit: %v, and %d bytes written", err, b.Len())
	}
	// Nothing of a message over the limit is read.
	r := strings.NewReader("\x00\x01\x00\x01rest")
	if _, err := Read(r); err == nil || r.Len() != len("rest") {
		t.Errorf("%v, with %d bytes left", err, r.Len())
	}
}

// counter counts Writes.
type counter struct {
	n   int
	err error
}

func (c *counter) Write(p []byte) (int, error) { c.n++; return len(p), c.err }

func TestWriteOnce(t *testing.T) {
	c := &counter{}
	if err := Write(c, samples()["hello"]); err != nil || c.n != 1 {
		t.Errorf("%v, %d writes", err, c.n)
	}
	c.err = io.ErrClosedPipe
	if err := Write(c, samples()["hello"]); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("got %v", err)
	}
}

func TestReadPassesErrorsOn(t *testing.T) {
	broken := errors.New("broken")
	for _, before := range []string{"", "\x00", "\x00\x00\x00\x09{"} {
		r := io.MultiReader(strings.NewReader(before), iotest.ErrReader(broken))
		if _, err := Read(r); !errors.Is(err, broken) {
			t.Errorf("behind %q: %v", before, err)
		}
	}
}

func FuzzRead(f *testing.F) {
	for _, m := range samples() {
		var b bytes.Buffer
		if err := Write(&b, m); err != nil {
			f.Fatal(err)
		}
		f.Add(b.Bytes())
		f.Add(b.Bytes()[:b.Len()/2])
	}
	for _, s := range []string{"", "\xff\xff\xff\xff", "\x00\x00\x00\x04null", framed(`{"hello":{"versions":[]},"bye":null}`), framed("{\"drain\":{\"reason\":\"\xff\"}}"), framed(strings.Repeat("[", 20000))} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		r := bytes.NewReader(in)
		m, err := Read(r)
		used := len(in) - r.Len()
		if used > 4+MaxMessage {
			t.Fatalf("read %d bytes", used)
		}
		if err != nil {
			if m != nil || err == io.EOF && len(in) > 0 {
				t.Fatalf("%+v, %v", m, err)
			}
			return
		}
		if want := 4 + int(binary.BigEndian.Uint32(in)); used != want {
			t.Fatalf("read %d bytes of a message of %d", used, want)
		}
		// Written again and read again it is the same. Escapes may make it longer.
		var b bytes.Buffer
		if err := Write(&b, m); err != nil {
			if body, _ := json.Marshal(m); len(body) <= MaxMessage {
				t.Fatal(err)
			}
			return
		}
		if again, err := Read(&b); err != nil || !reflect.DeepEqual(again, m) {
			t.Fatalf("%+v became %+v, %v", m, again, err)
		}
	})
}
