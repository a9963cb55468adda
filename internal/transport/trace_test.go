package transport

import (
	"errors"
	"net/http/httptest"
	"net/url"
	"slices"
	"testing"
)

// Each stage is told of once, in order, up to the one that fails.
func TestTrace(t *testing.T) {
	s := newServer(t, (*httptest.Server).StartTLS)
	go func() { <-s.accepted }() // a refusal
	p := newProxy(t, s.URL, "user:secret", (*httptest.Server).StartTLS)
	stages := func(user *url.Userinfo) (all []Step) {
		u := *p.URL
		u.User = user
		d := &Dialer{Server: s.URL, TLS: trust(s.Server, p.Server), Proxy: via(&u), Trace: func(one Step) { all = append(all, one) }}
		_, err := d.Describe(bounded(t))
		if last := all[len(all)-1]; last.Err != nil && !errors.Is(err, last.Err) || err == nil {
			t.Errorf("Describe says %v, and the last stage %v", err, last.Err)
		}
		return all
	}
	names := func(steps []Step) (all []Stage) {
		for _, one := range steps {
			all = append(all, one.Stage)
		}
		return all
	}
	all := stages(url.UserPassword("user", "secret"))
	if got, want := names(all), []Stage{ProxySecured, Proxied, Secured, Answered}; !slices.Equal(got, want) {
		t.Fatalf("the stages are %v, want %v", got, want)
	}
	for _, one := range all {
		if one.Err != nil || one.Took <= 0 {
			t.Errorf("%s took %v: %v", one.Stage, one.Took, one.Err)
		}
	}
	if len(all[0].TLS.PeerCertificates) == 0 || len(all[2].TLS.PeerCertificates) == 0 || all[3].Head.Get("Date") == "" {
		t.Error("certificates or the answer's head are missing")
	}
	if all = stages(nil); len(all) != 2 || all[1].Stage != Proxied || all[1].Err == nil {
		t.Errorf("without a password the stages are %+v", all)
	}
}
