package auth

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/revtun/tunnel/pkg/protocol"
)

// counter knows one token, and counts what it compares.
type counter struct {
	mu       sync.Mutex
	token    string
	compared int
	err      error // instead of an answer
}

func (c *counter) Authenticate(token, _ string) (Identity, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.compared++
	runtime.Gosched() // who comes at the same time gets the chance
	switch {
	case c.err != nil:
		return Identity{}, c.err
	case token != c.token:
		return Identity{}, refusal(token)
	}
	return identify("token:", token), nil
}

func (c *counter) Valid(Identity) bool { return true }

func (c *counter) Rights(Identity) Rights { return Rights{} }

// addr is one of 2^16 addresses.
func addr(n int) netip.Addr { return netip.AddrFrom4([4]byte{192, 0, byte(n >> 8), byte(n)}) }

// login is what a client at from gets: "in", or the code of the refusal.
func login(t *testing.T, th *Throttle, from netip.Addr, token string) string {
	t.Helper()
	return loginOn(t, th, from, token, rand.Text())
}

func loginOn(t *testing.T, th *Throttle, from netip.Addr, token, session string) string {
	t.Helper()
	id, err := th.Authenticate(context.Background(), from, token, session)
	var e *protocol.Error
	switch {
	case err == nil && id != (Identity{}):
		return "in"
	case errors.As(err, &e) && id == Identity{}:
		var throttled *Throttled
		if errors.As(err, &throttled) != (e.Code == protocol.LoginThrottled) || throttled != nil && throttled.RetryAfter <= 0 {
			t.Fatalf("%s: %+v", e.Code, throttled)
		}
		return string(e.Code)
	}
	t.Fatalf("%v, %v", id, err)
	return ""
}

func wantLogin(t *testing.T, th *Throttle, from netip.Addr, token, want string) {
	t.Helper()
	if got := login(t, th, from, token); got != want {
		t.Fatalf("login from %s: %s, want %s", from, got, want)
	}
}

const in, unauthorized, throttled = "in", string(protocol.Unauthorized), string(protocol.LoginThrottled)

// S14: of 10,000 guesses of one address within a minute few are compared, come
// they one after the other or all at once, and not even the right one gets in.
// Others log in as ever.
func TestThrottleGuesser(t *testing.T) {
	for _, at := range []string{"one by one", "at once"} {
		t.Run(at, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := &counter{token: alpha}
				th := &Throttle{Auth: c, PerMinute: 10}
				var all sync.WaitGroup
				for n := range 10_000 {
					if at == "at once" {
						all.Go(func() { th.Authenticate(t.Context(), addr(1), fmt.Sprint("guess-", n), "session") })
						continue
					}
					login(t, th, addr(1), fmt.Sprint("guess-", n))
					time.Sleep(time.Minute / 10_000)
				}
				all.Wait()
				most := 10 // the bucket, and what it drains within the minute
				if at == "one by one" {
					most += 10
				}
				if c.compared > most || c.compared < 10 {
					t.Errorf("%d of 10,000 guesses were compared, want 10 to %d", c.compared, most)
				}
				for n := 0; n < 100 && login(t, th, addr(1), fmt.Sprint("one-more-", n)) != throttled; n++ {
				}
				wantLogin(t, th, addr(1), alpha, throttled)
				wantLogin(t, th, addr(2), alpha, in)
				wantLogin(t, th, addr(3), beta, unauthorized)
				time.Sleep(time.Minute)
				wantLogin(t, th, addr(1), alpha, in)
			})
		})
	}
}

// The time that a refusal names is when the next guess is compared, not later
// and not sooner; asking meanwhile does not prolong it.
func TestThrottleRetryAfter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &counter{token: alpha}
		th := &Throttle{Auth: c, PerMinute: 4}
		for n := range 20 {
			before := c.compared
			_, err := th.Authenticate(t.Context(), addr(1), fmt.Sprint("guess-", n), "session")
			var e *Throttled
			if !errors.As(err, &e) {
				continue
			}
			if n < 4 || e.RetryAfter != 15*time.Second || c.compared != before {
				t.Fatalf("guess %d: after %v, %d compared", n, e.RetryAfter, c.compared)
			}
			time.Sleep(e.RetryAfter - time.Nanosecond)
			wantLogin(t, th, addr(1), fmt.Sprint("later-", n), throttled)
			time.Sleep(time.Nanosecond)
			wantLogin(t, th, addr(1), fmt.Sprint("later-", n), unauthorized)
		}
	})
}

// A guesser with many addresses gets no further than 120 first guesses and 20
// addresses would, and does not shut out who has logged in before; nor does who
// logged in get more guesses.
func TestThrottleMany(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &counter{token: alpha}
		th := &Throttle{Auth: c, PerMinute: 10}
		friend := addr(60_000)
		wantLogin(t, th, friend, alpha, in)
		c.compared = 0
		for n := range 20_000 {
			login(t, th, addr(n%5000), fmt.Sprint("guess-", n))
		}
		if c.compared != 1400 {
			t.Errorf("%d guesses were compared, want 1400", c.compared)
		}
		wantLogin(t, th, addr(50_000), alpha, throttled) // the price of it, for a stranger
		for range 100 {
			wantLogin(t, th, friend, alpha, in)
		}
		for n := range 10 {
			wantLogin(t, th, friend, fmt.Sprint("guess-", n), unauthorized)
		}
		wantLogin(t, th, friend, alpha, throttled)
		time.Sleep(50 * time.Millisecond) // one of 1,200
		wantLogin(t, th, addr(50_000), alpha, in)
		time.Sleep(time.Minute)
		wantLogin(t, th, friend, alpha, in)
	})
}

// S14: guesses from networks that fill the limit of all, without an end, shut
// out nobody who did not guess, on a server that knows nobody yet. One home's 256
// /64 do not even fill it.
func TestThrottleStrangers(t *testing.T) {
	for _, test := range []struct {
		name          string
		guesser       func(n int) netip.Addr
		least, most   int    // compared in 5 minutes
		again, second string // who guessed once, from another site and from the guesser's
	}{
		{"one /56", func(n int) netip.Addr {
			a := netip.MustParseAddr("2001:db8:0:ab00::").As16()
			a[7] = byte(n)
			return netip.AddrFrom16(a)
		}, 100, 120, in, throttled},
		{"a thousand sites", func(n int) netip.Addr { return addr(n % 1000) }, 5000, 6400, throttled, throttled},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := &counter{token: alpha}
				th := &Throttle{Auth: c, PerMinute: 10}
				typo := addr(60_000)
				for n := range 30_000 {
					if n == 29_900 {
						wantLogin(t, th, typo, "a-typo", unauthorized)
					}
					login(t, th, test.guesser(n), fmt.Sprint("guess-", n))
					if n%100 == 50 {
						wantLogin(t, th, addr(10_000+n), alpha, in)
					}
					time.Sleep(10 * time.Millisecond)
				}
				if guessed := c.compared - 301; guessed < test.least || guessed > test.most {
					t.Errorf("%d guesses were compared, want %d to %d", guessed, test.least, test.most)
				}
				login(t, th, test.guesser(30_001), "one-more")
				wantLogin(t, th, typo, alpha, test.again)
				wantLogin(t, th, test.guesser(30_000), alpha, test.second)
			})
		})
	}
}

// A session that logged in is let in with the token it had, whoever guesses
// beside it. Nothing can be guessed with it: neither by who does not know its id,
// nor by who does.
func TestThrottleSession(t *testing.T) {
	c := &counter{token: alpha}
	th := &Throttle{Auth: c, PerMinute: 2}
	want := func(token, session, want string) {
		t.Helper()
		if got := loginOn(t, th, addr(1), token, session); got != want {
			t.Fatalf("%s with %s: %s, want %s", session, token, got, want)
		}
	}
	want(alpha, "first", in)
	want(alpha, "second", in)
	want(beta, "third", unauthorized)
	want("guess-1", "third", unauthorized)
	for n := range 10 {
		want(fmt.Sprint("guess-", n+2), "third", throttled)
		want(alpha, "third", throttled)
		want(alpha, "first", in)
		want(alpha, "second", in)
	}
	c.token = "" // revoked
	want(alpha, "first", unauthorized)
	c.token = alpha
	compared := c.compared
	want("guess-20", "second", throttled)
	want(alpha, "second", throttled) // the id is no secret, it seems
	if c.compared != compared {
		t.Error("a token was compared")
	}
	want(alpha, "first", in)
}

// All of an IPv6 /64 are one, an IPv4 address is one however it is written, and
// neighbours are others.
func TestThrottleNetworks(t *testing.T) {
	for _, test := range []struct {
		guesser, other string
		want           string
	}{
		{"2001:db8::1", "2001:db8::ffff:1:2:3", throttled},
		{"2001:db8::1", "2001:db8:0:1::1", in},
		{"2001:db8::1 2001:db8:0:1::1", "2001:db8:0:2::1", throttled},
		{"2001:db8::1 2001:db8:0:1::1", "2001:db8:1::1", in},
		{"fe80::1%eth0", "fe80::2%eth1", throttled},
		{"192.0.2.1", "::ffff:192.0.2.1", throttled},
		{"::ffff:192.0.2.1", "::ffff:192.0.2.2", in},
		{"192.0.2.1", "192.0.2.2", in},
	} {
		th := &Throttle{Auth: &counter{token: alpha}, PerMinute: 1}
		for guesser := range strings.FieldsSeq(test.guesser) {
			wantLogin(t, th, netip.MustParseAddr(guesser), beta, unauthorized)
		}
		wantLogin(t, th, netip.MustParseAddr(test.other), alpha, test.want)
	}
	th := &Throttle{Auth: &counter{token: alpha}, PerMinute: 1}
	wantLogin(t, th, netip.Addr{}, beta, unauthorized)
	wantLogin(t, th, netip.Addr{}, alpha, throttled)
}

// What is no guess counts for nothing: no token, the wrong one that was shown
// before, a right one, and a server that cannot tell.
func TestThrottleSpares(t *testing.T) {
	c := &counter{token: alpha}
	th := &Throttle{Auth: c, PerMinute: 3}
	for range 100 {
		wantLogin(t, th, addr(1), "", unauthorized)
		wantLogin(t, th, addr(1), alpha, in)
		wantLogin(t, th, addr(1), "an-old-token", unauthorized)
	}
	c.err = &protocol.Error{Code: protocol.AuthUnavailable}
	for n := range 100 {
		wantLogin(t, th, addr(1), fmt.Sprint("token-", n), string(protocol.AuthUnavailable))
	}
	c.err = nil
	wantLogin(t, th, addr(1), "second-guess", unauthorized)
	wantLogin(t, th, addr(1), "third-guess", unauthorized)
	wantLogin(t, th, addr(1), "fourth-guess", throttled)
	// The old token is let in again: it is compared, as it was counted already.
	c.token = "an-old-token"
	wantLogin(t, th, addr(1), "an-old-token", in)

	off := &Throttle{Auth: c}
	for n := range 1000 {
		wantLogin(t, off, addr(1), fmt.Sprint("guess-", n), unauthorized)
	}
}

// What it remembers is bounded, however many come and from wherever.
func TestThrottleMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &counter{token: alpha}
		th := &Throttle{Auth: c, PerMinute: 5}
		strangers := 0
		for n := range 1 << 14 {
			login(t, th, netip.AddrFrom16([16]byte{0x20, 1, 2: byte(n >> 8), byte(n)}), fmt.Sprint("guess-", n))
			strangers = max(strangers, len(th.sources))
			time.Sleep(40 * time.Millisecond)
		}
		if strangers > 840*5 || strangers < 240*5 {
			t.Errorf("%d networks that failed are kept, want 1200 to 4200", strangers)
		}
		time.Sleep(time.Minute)
		for n := range 2 * maxKnown {
			wantLogin(t, th, addr(n), alpha, in)
		}
		time.Sleep(time.Minute)
		login(t, th, addr(1<<16-1), beta)
		if n := len(th.sources); n > maxKnown+1 || th.known.Len() != maxKnown {
			t.Errorf("%d addresses are kept, %d of them known", n, th.known.Len())
		}
		if n := len(th.logins.tokens); n != maxLogins || len(th.logins.sessions) != maxLogins {
			t.Errorf("%d logins are kept in a ring of %d, want %d", n, len(th.logins.sessions), maxLogins)
		}
		s := th.sources[place{"", Site(addr(2*maxKnown - 1))}]
		for n := range 1000 {
			login(t, th, addr(2*maxKnown-1), fmt.Sprint("guess-", n))
			time.Sleep(time.Minute)
		}
		if len(s.wrong) != maxWrong || cap(s.wrong) > 2*maxWrong {
			t.Errorf("%d wrong tokens are kept in room for %d", len(s.wrong), cap(s.wrong))
		}
	})
}

// Guesses do not fill the log, and are not in it.
func TestThrottleLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		th := &Throttle{Auth: &counter{}, PerMinute: 1, Log: slog.New(slog.NewTextHandler(&log, nil))}
		for n := range 1000 {
			login(t, th, addr(1), fmt.Sprint("guess-", n))
			time.Sleep(120 * time.Millisecond)
		}
		lines := strings.Count(log.String(), "\n")
		if lines < 1 || lines > 3 || !strings.Contains(log.String(), addr(1).String()) || strings.Contains(log.String(), "guess") {
			t.Errorf("%d lines:\n%s", lines, &log)
		}
	})
}

// What is compared elsewhere counts as what is compared here.
func TestThrottleElsewhere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		th := &Throttle{PerMinute: 3}
		for range 3 {
			if wait := th.Wait("", addr(1)); wait != 0 {
				t.Fatalf("it waits %v", wait)
			}
			th.Count("", addr(1), false)
		}
		wait := th.Wait("", addr(1))
		if wait <= 0 || wait > time.Minute/3 {
			t.Fatalf("it waits %v", wait)
		}
		if wait := th.Wait("other", addr(1)); wait != 0 {
			t.Errorf("at another door it waits %v", wait)
		}
		if wait := th.Wait("", addr(2)); wait != 0 {
			t.Errorf("another waits %v", wait)
		}
		time.Sleep(wait)
		if wait := th.Wait("", addr(1)); wait != 0 {
			t.Errorf("it waits on for %v", wait)
		}
		// An address that got in before is not shut out by all the others.
		th.Count("", addr(3), true)
		for n := range 1000 {
			th.Count("", addr(100+n%500), false)
		}
		if th.Wait("", addr(100)) == 0 || th.Wait("", addr(3)) != 0 {
			t.Error("it is not the one who guesses that waits")
		}
	})
	var none *Throttle
	none.Count("", addr(1), false)
	if none.Wait("", addr(1)) != 0 || new(Throttle).Wait("", addr(1)) != 0 {
		t.Error("without a limit there is one")
	}
}
