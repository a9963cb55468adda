package protocol

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/http"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

// Each field of a Share is a part that a server has to confirm: none can be forgotten.
func TestPartsAreAllFields(t *testing.T) {
	full := &Share{
		BasicAuth: []User{{}}, Link: []byte{1}, Allow: make([]netip.Prefix, 1), Deny: make([]netip.Prefix, 1),
		TTL: 1, NoIndex: true, Request: new(Edits), Response: new(Edits),
	}
	v := reflect.ValueOf(full).Elem()
	var want []string
	for i := range v.NumField() {
		if v.Field(i).IsZero() {
			t.Errorf("the test does not set %s", v.Type().Field(i).Name)
		}
		name, _, _ := strings.Cut(v.Type().Field(i).Tag.Get("json"), ",")
		want = append(want, name)
	}
	slices.Sort(want)
	if got := full.Parts(); !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if got := (*Share)(nil).Parts(); got != nil {
		t.Errorf("nil has %v", got)
	}
	// What a server does not know gets lost when it reads the bind.
	var read Share
	if err := json.Unmarshal([]byte(`{"noindex":true,"from_the_future":{}}`), &read); err != nil || !slices.Equal(read.Parts(), []string{"noindex"}) {
		t.Errorf("got %v, %v", read.Parts(), err)
	}
}

func TestShareCheck(t *testing.T) {
	user := User{Name: "a", Salt: make([]byte, 16), Hash: make([]byte, 32)}
	net := netip.MustParsePrefix("192.0.2.0/24")
	edit := func(name, value string) *Edits { return &Edits{Set: []Field{{name, value}}} }
	good := []*Share{
		nil, {}, {BasicAuth: []User{user}}, {Link: make([]byte, 32)}, {Allow: []netip.Prefix{net}}, {TTL: MaxTTL.Milliseconds()},
		{Request: edit("X-A", "")}, {Request: edit("Authorization", "Basic eA==")}, {Response: edit("Set-Cookie", "a=b")},
		{Response: &Edits{Remove: []string{"Server"}}}, {Response: edit("X-Forwarded-For", "it is an answer's")},
	}
	for _, s := range good {
		if err := s.Check(""); err != nil {
			t.Errorf("%+v: %v", s, err)
		}
	}
	for _, kind := range []Kind{KindTCP, KindTLS, KindUDP} {
		if err := (&Share{Allow: []netip.Prefix{net}, Deny: []netip.Prefix{net}, TTL: 1}).Check(kind); err != nil {
			t.Errorf("%s: %v", kind, err)
		}
		for _, s := range []*Share{{BasicAuth: []User{user}}, {Link: make([]byte, 32)}, {NoIndex: true}, {Request: edit("A", "")}, {Response: edit("A", "")}} {
			if s.Check(kind) == nil {
				t.Errorf("%s: %v is let pass", kind, s.Parts())
			}
		}
	}
	bad := []*Share{
		{TTL: -1}, {TTL: MaxTTL.Milliseconds() + 1}, {Link: make([]byte, 31)},
		{Allow: make([]netip.Prefix, 1)}, {Deny: []netip.Prefix{netip.MustParsePrefix("::ffff:192.0.2.0/120")}},
		{Allow: slices.Repeat([]netip.Prefix{net}, MaxCIDRs+1)},
		{BasicAuth: []User{{Name: "a"}}}, {BasicAuth: []User{user, user}}, {BasicAuth: slices.Repeat([]User{user}, MaxUsers+1)},
		{BasicAuth: []User{{Salt: user.Salt, Hash: user.Hash}}}, {BasicAuth: []User{{Name: "a", Salt: user.Salt, Hash: nil}}},
		{Request: edit("X-A", "a\r\nX-B: c")}, {Request: edit("X-A", " a")}, {Request: edit("X-A", strings.Repeat("a", 4097))},
		{Request: edit("", "a")}, {Request: edit("X A", "a")}, {Request: edit("X-A:", "a")}, {Request: edit("X-A\r\n", "a")},
		{Request: &Edits{Remove: slices.Repeat([]string{"A"}, MaxEdits+1)}},
		{Response: &Edits{Set: slices.Repeat([]Field{{"A", strings.Repeat("a", 4000)}}, 5)}},
	}
	for _, s := range bad {
		if s.Check("") == nil {
			t.Errorf("%+v is let pass", s)
		}
	}
}

// S1, S3, S4: framing, the connection, and what the tunnel says itself are nobody's to change,
// however they are spelled.
func TestReservedFields(t *testing.T) {
	both := []string{
		"Connection", "proxy-connection", "Keep-Alive", "Transfer-Encoding", "transfer_encoding", "Content-Length", "CONTENT_LENGTH", "TE", "Trailer",
		"Upgrade", "Proxy-Authorization", "Proxy-Authenticate", "HTTP2-Settings", "Tunnel-Error", "tunnel_visitor", "Sec-WebSocket-Key",
	}
	for _, name := range both {
		if CheckRequestField(name) == nil || CheckResponseField(name) == nil {
			t.Errorf("%s is let pass", name)
		}
	}
	for _, name := range []string{"Host", "Expect", "X-Forwarded-For", "x_forwarded_proto", "Forwarded", "X-Real-IP"} {
		if CheckRequestField(name) == nil {
			t.Errorf("%s is let pass in a request", name)
		}
	}
}

func TestLinks(t *testing.T) {
	public, key, _ := ed25519.GenerateKey(nil)
	_, other, _ := ed25519.GenerateKey(nil)
	now := time.Unix(1_800_000_000, 0)
	token := SignLink(key, now.Add(time.Hour))
	if until, err := VerifyLink(public, token, now); err != nil || !until.Equal(now.Add(time.Hour)) {
		t.Errorf("got %v, %v", until, err)
	}
	for _, after := range []time.Duration{time.Hour, 1000 * time.Hour} {
		if _, err := VerifyLink(public, token, now.Add(after)); !errors.Is(err, ErrLinkExpired) {
			t.Errorf("after %v: %v", after, err)
		}
	}
	if _, err := VerifyLink(public, token, now.Add(time.Hour-1)); err != nil {
		t.Error(err)
	}
	raw, _ := base64.RawURLEncoding.DecodeString(token)
	forged := map[string]string{
		"another key": SignLink(other, now.Add(time.Hour)), "empty": "", "short": token[:len(token)-1], "long": token + "A",
		"no base64": strings.Repeat("=", len(token)), "line ends": strings.Repeat("\n", len(token)), "a line end": token[:50] + "\n" + token[51:], "no link's": base64.RawURLEncoding.EncodeToString(append(raw[:8:8], ed25519.Sign(key, raw[:8])...)),
	}
	for i := range raw { // each byte counts
		one := bytes.Clone(raw)
		one[i] ^= 1
		forged["flipped "+string(rune('a'+i))] = base64.RawURLEncoding.EncodeToString(one)
	}
	for name, one := range forged {
		// One that was never good has not expired either.
		if _, err := VerifyLink(public, one, now.Add(1000*time.Hour)); err == nil || errors.Is(err, ErrLinkExpired) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := VerifyLink(nil, token, now); err == nil {
		t.Error("it is good without a key")
	}
}

// S14: no password is in what travels, and two users of one password do not look alike.
func TestUsers(t *testing.T) {
	a, err := NewUser("alice", "correct horse")
	if err != nil {
		t.Fatal(err)
	}
	b, _ := NewUser("bob", "correct horse")
	if bytes.Equal(a.Salt, b.Salt) || bytes.Equal(a.Hash, b.Hash) {
		t.Error("the salt is always the same")
	}
	body, _ := json.Marshal(a)
	if strings.Contains(string(body), "horse") {
		t.Errorf("the password is in %s", body)
	}
	if !a.Is("correct horse") || a.Is("correct hors") || a.Is("") || (&User{Salt: a.Salt}).Is("") {
		t.Error("it is not the password that counts")
	}
	for _, c := range [][2]string{{"", "p"}, {"u", ""}, {"u:v", "p"}, {"u\n", "p"}, {"u", "p\x00"}, {"u", "\xff"}, {strings.Repeat("u", 256), "p"}, {"u", strings.Repeat("p", 1025)}} {
		if _, err := NewUser(c[0], c[1]); err == nil || len(c[1]) > 2 && strings.Contains(err.Error(), c[1]) {
			t.Errorf("%.20q: %v", c, err)
		}
	}
}

// Whatever is shown as a token is refused unless the key has signed just that.
func FuzzVerifyLink(f *testing.F) {
	key := ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))
	public := key.Public().(ed25519.PublicKey)
	f.Add(SignLink(key, time.Unix(1_800_000_000, 0)))
	f.Add("")
	f.Fuzz(func(t *testing.T, token string) {
		if until, err := VerifyLink(public, token, time.Unix(0, 0)); err == nil && SignLink(key, until) != token {
			t.Errorf("%q is another spelling of %q", token, SignLink(key, until))
		}
	})
}

// A policy is read as it was written, and a 101 confirms each part of it.
func TestPolicyField(t *testing.T) {
	s := &Share{NoIndex: true, TTL: 7, Response: &Edits{Set: []Field{{"X-Key", "ü"}}}}
	h := make(http.Header)
	s.SetPolicy(h)
	got, err := ParsePolicy(h)
	if err != nil || !reflect.DeepEqual(got, s) {
		t.Errorf("%+v, %v", got, err)
	}
	answer := make(http.Header)
	got.ConfirmPolicy(answer)
	if err := s.Enforced(ConfirmedPolicy(answer)); err != nil {
		t.Errorf("%v: %v", answer, err)
	}
	if err := (&Share{NoIndex: true, Deny: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}}).Enforced(ConfirmedPolicy(answer)); err == nil || !strings.Contains(err.Error(), "enforce deny_cidr,") {
		t.Errorf("what was not confirmed: %v", err)
	}
	none := make(http.Header)
	(*Share)(nil).SetPolicy(none)
	(*Share)(nil).ConfirmPolicy(none)
	if got, err := ParsePolicy(none); len(none) != 0 || got != nil || err != nil {
		t.Errorf("of no policy: %v, %v, %v", none, got, err)
	}
	left := *s
	left.TTL = 3
	for other, want := range map[*Share]bool{nil: false, s: true, &left: true, {NoIndex: true, TTL: 7}: false, {NoIndex: true, Response: s.Response}: false} {
		if s.Same(other) != want || other.Same(s) != want {
			t.Errorf("%+v is the same as %+v: %v", s, other, !want)
		}
	}
}

// What is not known cannot be enforced, and is not dropped.
func TestPolicyFieldOfLater(t *testing.T) {
	for body, want := range map[string]string{
		`{"noindex":true,"visible_to":["ann"]}`:                          `"visible_to"`,
		`{"response_headers":{"set":[{"name":"A","value":"b","if":1}]}}`: `"if"`,
		`{"noindex":true}{}`:                                             "not a JSON object",
		`{"noindex":true} x`:                                             "not a JSON object",
		`{"noindex":"maybe"}`:                                            "not a JSON object",
		`[]`:                                                             "not a JSON object",
	} {
		s, err := ParsePolicy(http.Header{HeaderPolicy: {base64.RawURLEncoding.EncodeToString([]byte(body))}})
		if s != nil || err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, %v", body, s, err)
		}
		if errors.Is(err, &Error{Code: ShareUnsupported}) != strings.HasPrefix(want, `"`) {
			t.Errorf("%s: %v", body, err)
		}
	}
}

func FuzzParsePolicy(f *testing.F) {
	f.Add("eyJub2luZGV4Ijp0cnVlfQ")
	f.Add("bnVsbA")
	f.Fuzz(func(t *testing.T, field string) {
		s, err := ParsePolicy(http.Header{HeaderPolicy: {field}})
		if (s == nil) != (err != nil) {
			t.Fatalf("%v, %v", s, err)
		}
		if err != nil || s.Check(KindHTTP) != nil {
			return
		}
		h := make(http.Header)
		s.SetPolicy(h)
		if again, err := ParsePolicy(h); err != nil || !slices.Equal(again.Parts(), s.Parts()) {
			t.Errorf("%v became %v, %v", s.Parts(), again.Parts(), err)
		}
	})
}
