package tunnel

import (
	"errors"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/revtun/tunnel/pkg/protocol"
)

// A server that ignores a part of what is asked for gets nothing to publish: an older one
// takes no notice of fields that it does not know.
func TestServerThatDoesNotEnforce(t *testing.T) {
	for _, c := range []struct {
		enforced []string
		missing  string // "": it is right
	}{
		{nil, "deny_cidr, noindex"}, {[]string{"noindex"}, "deny_cidr"}, {[]string{"deny_cidr", "ttl"}, "noindex"},
		{[]string{"deny_cidr", "noindex", "from_the_future"}, ""},
	} {
		f, end := begin()
		f.bound = func(_ int, b *protocol.Bind, answer *protocol.Bound) { answer.Enforced = c.enforced }
		client, told := f.client()
		share := &protocol.Share{NoIndex: true, Deny: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}}
		l, err := client.Listen(t.Context(), Options{Share: share})
		if err == nil {
			l.Close()
		}
		if c.missing == "" {
			if err != nil {
				t.Errorf("%v: %v", c.enforced, err)
			}
		} else if !errors.Is(err, &protocol.Error{Code: protocol.ShareUnsupported}) || !strings.Contains(err.Error(), "enforce "+c.missing+",") || len(told) != 0 {
			t.Errorf("%v: %v, %d events", c.enforced, err, len(told))
		}
		end()
	}
}

// A server that was taken back to an older version is noticed when the client comes again.
func TestServerThatStopsEnforcing(t *testing.T) {
	f, end := begin()
	defer end()
	f.bound = func(n int, b *protocol.Bind, answer *protocol.Bound) {
		if n == 0 {
			answer.Enforced = b.Share.Parts()
		}
	}
	client, told := f.client()
	l, err := client.Listen(t.Context(), Options{Share: &protocol.Share{NoIndex: true}})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	expect(t, told, Ready)
	f.newest().Close()
	expect(t, told, Disconnected)
	if e := expect(t, told, Closed); !errors.Is(e.Err, &protocol.Error{Code: protocol.ShareUnsupported}) {
		t.Errorf("it ends with %v", e.Err)
	}
}

// A reconnect claims what is left of the time, and nothing when it is over.
func TestTimeToLiveGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, end := begin()
		defer end()
		asked := make(chan int64, 10)
		f.bound = func(_ int, b *protocol.Bind, answer *protocol.Bound) {
			asked <- b.Share.TTL
			answer.Enforced = b.Share.Parts()
		}
		client, told := f.client()
		l, err := client.Listen(t.Context(), Options{Share: &protocol.Share{TTL: time.Hour.Milliseconds()}})
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		expect(t, told, Ready)
		if got := <-asked; got != time.Hour.Milliseconds() {
			t.Errorf("first %d ms", got)
		}
		time.Sleep(40 * time.Minute)
		f.newest().Close()
		expect(t, told, Disconnected)
		expect(t, told, Reconnected)
		if got := time.Duration(<-asked) * time.Millisecond; got > 20*time.Minute || got < 19*time.Minute {
			t.Errorf("then %v", got)
		}
		time.Sleep(21 * time.Minute)
		f.newest().Close()
		expect(t, told, Disconnected)
		if e := expect(t, told, Closed); !errors.Is(e.Err, &protocol.Error{Code: protocol.Ended}) {
			t.Errorf("it ends with %v", e.Err)
		}
		if len(asked) != 0 {
			t.Error("it claims the name again")
		}
	})
}

func TestShareThatCannotBe(t *testing.T) {
	noIndex := &protocol.Share{NoIndex: true}
	for name, o := range map[string]Options{
		"of a port": {Kind: protocol.KindTCP, Share: noIndex}, "private": {Private: true, Share: noIndex}, "no time": {Share: &protocol.Share{TTL: -1}},
	} {
		_, err := new(Client).Listen(t.Context(), o)
		var config *ConfigError
		if !errors.As(err, &config) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
