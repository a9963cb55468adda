package forward

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"strconv"
	"strings"
)

// Target is where the local app is.
type Target struct {
	Scheme  string // "http", "https", or "h2c": HTTP/2 without TLS; "file": Host is a folder's path, escaped
	Network string // "tcp" or "unix"
	Addr    string // host:port, or the socket's path
	Host    string // as the app expects it in Host: without a standard port
}

// ParseTarget reads PORT, HOST:PORT, http://HOST[:PORT], https://…, h2c://… or
// unix:/PATH. The error says what is wrong and what would be right.
func ParseTarget(s string) (Target, error) {
	if path, ok := strings.CutPrefix(s, "unix:"); ok {
		path = strings.TrimPrefix(path, "//")
		if strings.HasPrefix(path, "/") {
			path = "/" + strings.TrimLeft(path, "/") // or its text would have the "//" of a URL
		}
		if path == "" || path == "/" {
			return Target{}, fmt.Errorf("target %q names no socket: use unix:/PATH", s)
		}
		return Target{Scheme: "http", Network: "unix", Addr: path, Host: "localhost"}, nil
	}
	scheme, rest, ok := strings.Cut(s, "://")
	if !ok {
		scheme, rest = "http", s
		if _, err := strconv.Atoi(s); err == nil {
			rest = "localhost:" + s
		} else if !strings.Contains(s, ":") {
			return Target{}, fmt.Errorf("target %q has no port: use PORT, HOST:PORT, http://HOST or unix:/PATH", s)
		}
	}
	port := "80"
	switch scheme = strings.ToLower(scheme); scheme {
	case "http", "h2c":
	case "https":
		port = "443"
	default:
		return Target{}, fmt.Errorf("target %q: scheme %s is not http, https, h2c or unix", s, scheme)
	}
	return tcpTarget(s, scheme, rest, port)
}

// ParseRawTarget reads PORT, HOST:PORT, tcp://HOST:PORT or unix:/PATH: where the
// local app takes connections. For datagrams, scheme is "udp" in place of "tcp", and
// there is no socket.
func ParseRawTarget(s, scheme string) (Target, error) {
	if strings.HasPrefix(s, "unix:") && scheme == "tcp" {
		t, err := ParseTarget(s)
		t.Scheme = scheme
		return t, err
	}
	rest := strings.TrimPrefix(s, scheme+"://")
	if _, err := strconv.Atoi(rest); err == nil {
		rest = "localhost:" + rest
	}
	host, port, err := net.SplitHostPort(rest)
	if n, bad := strconv.Atoi(port); err != nil || host == "" || bad != nil || n < 1 || n > 65535 {
		return Target{}, fmt.Errorf("target %q is not an address: use PORT, HOST:PORT or %s://HOST:PORT", s, scheme)
	}
	return Target{Scheme: scheme, Network: scheme, Addr: rest, Host: rest}, nil
}

func tcpTarget(s, scheme, rest, standard string) (Target, error) {
	u, err := url.Parse(scheme + "://" + rest)
	switch {
	case err != nil:
		return Target{}, fmt.Errorf("target %q is not an address: %w", s, unwrapURL(err))
	case u.Hostname() == "":
		return Target{}, fmt.Errorf("target %q names no host", s)
	case u.User != nil:
		return Target{}, errors.New("a target has no user and password: the visitor sends them")
	case u.RawQuery != "", u.Fragment != "", u.Path != "" && u.Path != "/":
		return Target{}, fmt.Errorf("target %q has a path: a tunnel leads to a whole host, and paths stay as they are", s)
	}
	port := u.Port()
	if port == "" {
		port = standard
	}
	if n, err := strconv.Atoi(port); err != nil || n < 1 || n > 65535 {
		return Target{}, fmt.Errorf("target %q: port %s is not between 1 and 65535", s, port)
	}
	t := Target{Scheme: scheme, Network: "tcp", Addr: net.JoinHostPort(u.Hostname(), port)}
	t.Host = strings.TrimSuffix(t.Addr, ":"+standard)
	return t, nil
}

func unwrapURL(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		return u.Err
	}
	return err
}

// OriginScheme is the scheme of the app's own URLs: "http" or "https".
func (t Target) OriginScheme() string {
	if t.Scheme == "https" {
		return "https"
	}
	return "http"
}

// String is the target as a URL, or unix:PATH.
func (t Target) String() string {
	if t.Network == "unix" {
		return "unix:" + t.Addr
	}
	return t.Scheme + "://" + t.Host
}
