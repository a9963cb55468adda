package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"
	"golang.org/x/net/idna"

	"github.com/revtun/tunnel/pkg/protocol"
)

// domainFlag is of the commands whose endpoints are found by a host name.
func domainFlag() cli.Flag {
	return &cli.StringSliceFlag{
		Name: "domain", EnvVars: env("domain"),
		Usage: "custom `DOMAIN` that leads here too, may be repeated; it takes a right of the token or a TXT record, which the server names",
	}
}

// domains are those that the user gave, in the form of which there is one only.
func domains(given []string) (all []string, err error) {
	for _, one := range given {
		if one = strings.TrimSpace(one); one == "" {
			continue // a variable that was not filled in
		}
		ascii, err := idna.Lookup.ToASCII(strings.ToLower(strings.TrimSuffix(one, ".")))
		if err != nil {
			ascii = one // CheckDomain says what is wrong
		}
		if err := protocol.CheckDomain(ascii); err != nil {
			return nil, fmt.Errorf("--domain: %w", err)
		}
		if !slices.Contains(all, ascii) {
			all = append(all, ascii)
		}
	}
	return all, nil
}
