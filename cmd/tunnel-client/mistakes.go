package main

import (
	"log/slog"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/urfave/cli/v2"
)

// mistakes are those that were found, and all others of the endpoint at its server number at.
// What one is about is set aside, so that the next one shows. What names an option that was
// set aside may follow from that, and ends the search.
func (s *spec) mistakes(start *cli.Context, at int, found problems) problems {
	var all problems
	aside := make(map[string]bool)
	for left := s; len(found) > 0; {
		for _, one := range found {
			if slices.ContainsFunc(one.about, func(option string) bool { return aside[option] }) {
				return all
			}
			all.add(one.at, "%w", one.err)
		}
		last := found[len(found)-1].about[0]
		aside[last] = true
		left = left.without(last)
		_, found = left.attempt(start, at, slog.New(slog.DiscardHandler))
	}
	return all
}

// without is the endpoint with nothing said of an option, or of its target: "".
func (s *spec) without(option string) *spec {
	left := *s
	left.options = maps.Clone(s.options)
	switch option {
	case "":
		left.leaveTarget()
	case "server":
		left.servers = nil
		fallthrough
	default:
		left.options[option] = setting{at: s.options[option].at, endpoint: s.options[option].endpoint}
	}
	return &left
}

// leaveTarget makes the target one in which nothing is wrong, nor in what asks for a certain folder.
func (s *spec) leaveTarget() {
	if s.target = "1"; s.kind == "file" {
		s.target = "."
	}
	delete(s.options, "spa")
	delete(s.options, "hidden")
}

// checkNames looks for endpoints that claim one name.
func (w *written) checkNames(specs []*spec) {
	first := make(map[string]*spec)
	for _, one := range specs {
		for _, claim := range one.claims() {
			if other := first[claim]; other != nil {
				name := one.options["name"]
				w.problems.add(name.at, "endpoint %s: name %s is that of endpoint %s, too: give one of them another", one.name, name.values[0], other.name)
				break
			}
			first[claim] = one
		}
	}
}

// claims are what only one endpoint can have: its name, on each server. Those of ports, and
// private ones, are a token's own.
func (s *spec) claims() []string {
	name := strings.Join(s.options["name"].values, "")
	if name == "" || s.guessed {
		return nil
	}
	among := ""
	switch private, _ := strconv.ParseBool(strings.Join(s.options["private"].values, "")); {
	case private && s.kind != "udp":
		among = "private " + s.owner()
	case private, s.kind == "tcp", s.kind == "udp":
		among = s.kind + " " + strconv.FormatBool(private) + " " + s.owner()
	}
	servers := s.servers
	if len(servers) == 0 {
		servers = []string{""}
	}
	var all []string
	for _, server := range servers {
		all = append(all, canonical(server)+" "+among+" "+name)
	}
	return all
}

// owner tells tokens apart.
func (s *spec) owner() string {
	return strings.Join(slices.Concat(s.options["token-file"].values, s.options["token-command"].values), "\n")
}
