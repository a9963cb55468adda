package auth

import (
	"errors"
	"strings"
	"testing"

	"github.com/revtun/tunnel/pkg/protocol"
)

func TestAnonymous(t *testing.T) {
	var a Anonymous
	withToken, err := a.Authenticate("secret-token", "s1")
	if err != nil {
		t.Fatal(err)
	}
	again, _ := a.Authenticate("secret-token", "s2")
	if withToken != again {
		t.Errorf("one token, two identities: %v and %v", withToken, again)
	}
	if strings.Contains(withToken.ID, "secret") {
		t.Errorf("identity %q shows the token", withToken.ID)
	}
	s1, _ := a.Authenticate("", "s1")
	s2, _ := a.Authenticate("", "s2")
	if s1 == s2 {
		t.Errorf("two sessions without token share the identity %v", s1)
	}
	spoof, _ := a.Authenticate("s1", "s2")
	if spoof == s1 {
		t.Error("a token with the text of a session id is that session's identity")
	}
	for _, id := range []Identity{withToken, s1, s2} {
		if !a.Valid(id) {
			t.Errorf("%v is not valid", id)
		}
	}
	if a.Valid(Identity{}) {
		t.Error("the zero identity is valid")
	}
}

func TestAnonymousWithNothing(t *testing.T) {
	id, err := Anonymous{}.Authenticate("", "")
	if !errors.Is(err, &protocol.Error{Code: protocol.Unauthorized}) || id != (Identity{}) {
		t.Errorf("got %v, %v", id, err)
	}
}

func TestOfSession(t *testing.T) {
	with, _ := Anonymous{}.Authenticate("session:x", "s")
	without, _ := Anonymous{}.Authenticate("", "s")
	if with.OfSession() || !without.OfSession() || (Identity{}).OfSession() {
		t.Errorf("with a token %t, without %t", with.OfSession(), without.OfSession())
	}
}
