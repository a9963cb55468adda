package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"net"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/revtun/tunnel/internal/rig"
)

// playRole is a child process of this program, if args say so.
func playRole(args []string) (known bool, err error) {
	if len(args) == 0 {
		return false, nil
	}
	switch args[0] {
	case roleApp:
		return true, playApp(args[1:])
	case roleOrigin:
		return true, playOrigin(args[1:])
	}
	return false, nil
}

// playApp is the child process of an app: at web, calls, raw (TCP and UDP) and sealed (TLS), with its
// journal, certificate and key at paths.
func playApp(args []string) error {
	if len(args) != 7 {
		return errors.New("want WEB CALLS RAW SEALED JOURNAL CERT KEY")
	}
	journal, err := rig.OpenJournal(args[4])
	if err != nil {
		return err
	}
	pair, err := tls.LoadX509KeyPair(args[5], args[6])
	if err != nil {
		return err
	}
	packets, err := net.ListenPacket("udp", args[2])
	if err != nil {
		return err
	}
	var listeners [4]net.Listener
	for i := len(listeners) - 1; i >= 0; i-- { // the first one shows that all are there
		if listeners[i], err = net.Listen("tcp", args[i]); err != nil {
			return err
		}
	}
	go rig.ExitWithParent()
	a, ctx := &rig.App{Journal: journal}, context.Background()
	ended := make(chan error, 4)
	go func() { ended <- a.Run(ctx, listeners[0], listeners[1]) }()
	go func() { ended <- a.RunRaw(ctx, listeners[2], nil) }()
	go func() { ended <- a.RunRaw(ctx, listeners[3], &tls.Config{Certificates: []tls.Certificate{pair}}) }()
	go func() { ended <- a.Echo(ctx, packets) }()
	return <-ended
}

// playOrigin is the child process of an app that attaches itself. At SIGTERM it ends in order.
func playOrigin(args []string) error {
	if len(args) != 5 {
		return errors.New("want SERVER NAME TOKENFILE CERT JOURNAL")
	}
	token, err := os.ReadFile(args[2])
	if err != nil {
		return err
	}
	cert, err := os.ReadFile(args[3])
	if err != nil {
		return err
	}
	trust := &tls.Config{RootCAs: x509.NewCertPool()}
	if !trust.RootCAs.AppendCertsFromPEM(cert) {
		return errors.New("no certificate in " + args[3])
	}
	journal, err := rig.OpenJournal(args[4])
	if err != nil {
		return err
	}
	go rig.ExitWithParent()
	const grace = 30 * time.Second
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	o := &rig.Origin{
		Proxy: args[0], Name: args[1], Token: strings.TrimSpace(string(token)), Trust: trust,
		Handler: &rig.App{Journal: journal}, Conns: 24,
	}
	return o.Run(ctx, grace, func(url string) {
		_ = json.NewEncoder(os.Stdout).Encode(struct{ URL string }{url})
	})
}
