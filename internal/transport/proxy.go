package transport

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"

	"golang.org/x/net/http/httpproxy"
)

// FromEnvironment returns the choice of a forward proxy that HTTP_PROXY,
// HTTPS_PROXY and NO_PROXY make, in upper or lower case, as they are now.
// Loopback addresses and localhost are never reached through a proxy. The
// function that it returns fails where the variable that counts is not the URL
// of an HTTP or HTTPS proxy.
func FromEnvironment() func(*url.URL) (*url.URL, error) {
	env := httpproxy.FromEnvironment()
	// httpproxy ignores what it cannot parse, and so would go around the proxy:
	// it decides whether, from values that parse; which is decided here.
	decide := *env
	for _, value := range []*string{&decide.HTTPProxy, &decide.HTTPSProxy} {
		if *value != "" {
			*value = "http://proxy.invalid"
		}
	}
	wanted := decide.ProxyFunc()
	return func(server *url.URL) (*url.URL, error) {
		if proxy, err := wanted(server); proxy == nil || err != nil {
			return nil, err
		}
		name, value := "HTTP_PROXY", env.HTTPProxy
		if server.Scheme == "https" {
			name, value = "HTTPS_PROXY", env.HTTPSProxy
		}
		proxy, err := parseProxy(value)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		return proxy, nil
	}
}

// FixedProxy returns the choice of raw for every server, on loopback, too. It
// is http://[USER:PASSWORD@]HOST[:PORT], or https://. Without a scheme it is
// taken for http. The error does not show raw, which may hold a password.
func FixedProxy(raw string) (func(*url.URL) (*url.URL, error), error) {
	proxy, err := parseProxy(raw)
	if err != nil {
		return nil, err
	}
	return func(*url.URL) (*url.URL, error) { return proxy, nil }, nil
}

func parseProxy(raw string) (*url.URL, error) {
	if !strings.Contains(raw, "://") {
		raw = "http://" + raw
	}
	// url.Parse shows parts of what it does not like, the password's too.
	const form = "write http://user:password@host:port, with special characters percent-encoded"
	proxy, err := url.Parse(raw)
	if err != nil {
		return nil, errors.New("the proxy is not a valid URL: " + form)
	}
	return proxy, checkProxy(proxy)
}

func checkProxy(proxy *url.URL) error {
	switch {
	case proxy.Scheme != "http" && proxy.Scheme != "https":
		return fmt.Errorf("a proxy of the kind %q is not supported: use the URL of an http:// or https:// proxy", proxy.Scheme)
	case proxy.Hostname() == "":
		return errors.New("the proxy's URL has no host: write http://user:password@host:port")
	}
	return nil
}

// tunnelThrough asks proxy for a connection to addr on conn (RFC 9110, section
// 9.3.6). An http server is reached in this way, too: a forward proxy that
// reads the upgrade does not pass it on.
func tunnelThrough(ctx context.Context, conn net.Conn, proxy *url.URL, addr, agent string) (net.Conn, error) {
	req := (&http.Request{
		Method: http.MethodConnect,
		URL:    &url.URL{Opaque: addr},
		Host:   addr,
		Header: make(http.Header),
	}).WithContext(ctx)
	if agent != "" {
		req.Header.Set("User-Agent", agent)
	}
	if u := proxy.User; u != nil {
		password, _ := u.Password()
		req.Header.Set("Proxy-Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte(u.Username()+":"+password)))
	}
	fail := func(err error) error {
		return fmt.Errorf("proxy %s: %w", origin(proxy), interrupted(ctx, err))
	}
	if err := req.Write(conn); err != nil {
		return nil, fail(err)
	}
	resp, br, err := readAnswer(conn, req)
	if err != nil {
		return nil, fail(err)
	}
	if resp.StatusCode/100 != 2 {
		return nil, fail(proxyRefusal(resp, proxy, addr))
	}
	return withRest(conn, br), nil
}

// proxyRefusal says what to do about a CONNECT that was not granted.
func proxyRefusal(resp *http.Response, proxy *url.URL, addr string) error {
	status := statusText(resp.StatusCode)
	const form = "--proxy http://user:password@host:port"
	switch resp.StatusCode {
	case http.StatusProxyAuthRequired, http.StatusUnauthorized: // tinyproxy's for a wrong password
		offers := resp.Header.Values("Proxy-Authenticate")
		switch {
		case len(offers) > 0 && !offersBasic(offers):
			return fmt.Errorf("it answered %s and takes no password in the Basic scheme, the only one spoken here (it offers %q)", status, printable(strings.Join(offers, ", ")))
		case proxy.User == nil:
			return fmt.Errorf("it answered %s: it wants a user and a password, pass them with %s", status, form)
		}
		return fmt.Errorf("it answered %s: the user or the password is wrong, correct them in %s", status, form)
	case http.StatusForbidden, http.StatusMethodNotAllowed:
		return fmt.Errorf("it answered %s: it does not allow connections to %s; many proxies allow port 443 alone", status, addr)
	case http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout, http.StatusNotFound:
		return fmt.Errorf("it answered %s: it does not reach %s, check --server", status, addr)
	}
	return fmt.Errorf("it answered %s when asked for a connection to %s: check that it is a forward proxy that allows CONNECT", status, addr)
}

func offersBasic(challenges []string) bool {
	for _, c := range challenges {
		for one := range strings.SplitSeq(c, ",") {
			scheme, _, _ := strings.Cut(strings.TrimSpace(one), " ")
			if strings.EqualFold(scheme, "Basic") {
				return true
			}
		}
	}
	return false
}
