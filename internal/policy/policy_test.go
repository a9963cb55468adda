package policy

import "testing"

func TestRewrites(t *testing.T) {
	for _, c := range []struct {
		policy *Policy
		want   bool
	}{
		{nil, false},
		{&Policy{}, false},
		{&Policy{Scheme: "http"}, false},
		{&Policy{Scheme: "http", Host: "localhost:3000"}, true},
	} {
		if got := c.policy.Rewrites(); got != c.want {
			t.Errorf("%+v: got %v, want %v", c.policy, got, c.want)
		}
	}
}
