package main

import (
	"fmt"
	"net"
	"os"
	"strings"

	"github.com/revtun/tunnel/internal/rig"
)

// peers are the programs of others that are measured where they are on PATH, each with the least
// configuration that makes it work on free loopback ports, and its own defaults for all the rest.
func peers() []variant {
	frp := []string{"frps", "frpc"}
	return []variant{
		{name: "frp http", needs: frp, plan: planFRP("http"),
			about: "proxy of type http; by default TLS to the server and one multiplexed connection"},
		{name: "frp tcp", needs: frp, plan: planFRP("tcp"), raw: true,
			about: "proxy of type tcp, no HTTP; by default TLS and one multiplexed connection"},
		{name: "frp https", needs: frp, speaks: []string{http1TLS, http2TLS},
			secure: func(s *site) (*plan, error) { return planFRP("https")(s, s.secureApp) },
			about:  "proxy of type https: the app ends TLS; by default TLS and one multiplexed connection"},
		{name: "frp udp", needs: frp, datagrams: planFRP("udp"),
			about: "proxy of type udp; by default TLS and one multiplexed connection"},
		{name: "chisel", needs: []string{"chisel"}, plan: planChisel(""), raw: true, datagrams: planChisel("/udp"),
			about: "a reverse TCP or UDP remote, no HTTP; SSH over one WebSocket"},
		{name: "piko", needs: []string{"piko"}, plan: planPiko,
			about: "agent http; by default no TLS, yamux over WebSocket, an access log on both sides"},
		{name: "sish", needs: []string{"sish", "ssh"}, plan: planSish,
			secure: planSishSecure, speaks: []string{http1TLS, http2TLS},
			about: "ssh -R of OpenSSH; no authentication, names as asked for, no DNS checks"},
	}
}

// planFRP plans frps and frpc with one proxy.
func planFRP(kind string) func(*site, string) (*plan, error) {
	return func(s *site, app string) (*plan, error) {
		at, err := s.FreePorts(2)
		if err != nil {
			return nil, err
		}
		control, public := at[0], at[1]
		p := &plan{visit: public, host: public, control: control}
		server := fmt.Sprintf("bindAddr = \"127.0.0.1\"\nproxyBindAddr = \"127.0.0.1\"\nbindPort = %s\n", port(control))
		route := "remotePort = " + port(public)
		if kind == "http" || kind == "https" {
			p.host = benchHost
			server += fmt.Sprintf("vhost%sPort = %s\n", strings.ToUpper(kind), port(public))
			route = fmt.Sprintf("customDomains = [%q]", benchHost)
		}
		file, err := s.file("frps.*.toml", server)
		if err != nil {
			return nil, err
		}
		p.server = program("frps", "-c", file)
		p.client = func(control string) rig.Command {
			text := fmt.Sprintf("serverAddr = \"127.0.0.1\"\nserverPort = %s\n[[proxies]]\nname = \"bench\"\n"+
				"type = %q\nlocalIP = \"127.0.0.1\"\nlocalPort = %s\n%s\n", port(control), kind, port(app), route)
			file, err := s.file("frpc.*.toml", text)
			if err != nil {
				file = err.Error() // frpc will say that it finds no such file
			}
			return program("frpc", "-c", file)
		}
		return p, nil
	}
}

// planChisel plans chisel with one remote; kind is "" for TCP, or "/udp".
func planChisel(kind string) func(*site, string) (*plan, error) {
	return func(s *site, app string) (*plan, error) {
		at, err := s.FreePorts(2)
		if err != nil {
			return nil, err
		}
		return &plan{
			visit: at[1], host: at[1], control: at[0],
			server: program("chisel", "server", "--host", "127.0.0.1", "--port", port(at[0]), "--reverse"),
			client: func(control string) rig.Command {
				return program("chisel", "client", "http://"+control, "R:"+at[1]+":"+app+kind)
			},
		}, nil
	}
}

func planPiko(s *site, app string) (*plan, error) {
	at, err := s.FreePorts(5)
	if err != nil {
		return nil, err
	}
	return &plan{
		visit: at[0], host: benchHost, control: at[1],
		server: program("piko", "server", "--proxy.bind-addr", at[0], "--upstream.bind-addr", at[1],
			"--admin.bind-addr", at[2], "--cluster.gossip.bind-addr", at[3]),
		client: func(control string) rig.Command {
			return program("piko", "agent", "http", "bench", app,
				"--connect.url", "http://"+control, "--server.bind-addr", at[4])
		},
	}, nil
}

// planSishSecure is planSish with HTTPS for visitors.
func planSishSecure(s *site) (*plan, error) {
	p, err := planSish(s, s.app)
	if err != nil {
		return nil, err
	}
	if p.visit, err = s.FreePort(); err != nil {
		return nil, err
	}
	p.server.Args = append(p.server.Args, "--https", "--https-address", p.visit,
		"--https-certificate-directory", string(s.certs))
	return p, nil
}

func planSish(s *site, app string) (*plan, error) {
	at, err := s.FreePorts(2)
	if err != nil {
		return nil, err
	}
	keys, err := os.MkdirTemp(s.dir, "sish-keys.")
	if err != nil {
		return nil, err
	}
	return &plan{
		visit: at[1], host: "web.bench.test", control: at[0],
		server: program("sish", "--ssh-address", at[0], "--http-address", at[1], "--domain", "bench.test",
			"--authentication=false", "--bind-random-subdomains=false", "--verify-dns=false",
			"--redirect-root=false", "--load-templates=false",
			"--private-keys-directory", keys, "--authentication-keys-directory", keys),
		client: func(control string) rig.Command {
			return program("ssh", "-F", "/dev/null", "-N", "-T", "-p", port(control),
				"-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null",
				"-o", "ExitOnForwardFailure=yes", "-o", "IdentityFile=none", "-o", "IdentityAgent=none",
				"-R", "web:80:"+app, "bench@127.0.0.1")
		},
	}, nil
}

// port is that of HOST:PORT.
func port(addr string) string {
	_, port, _ := net.SplitHostPort(addr)
	return port
}

// file writes a configuration file and gives its path.
func (l *lab) file(pattern, text string) (string, error) {
	f, err := os.CreateTemp(l.dir, pattern)
	if err != nil {
		return "", err
	}
	if _, err := f.WriteString(text); err != nil {
		return "", err
	}
	return f.Name(), f.Close()
}
