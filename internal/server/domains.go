package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/revtun/tunnel/internal/auth"
	"github.com/revtun/tunnel/internal/registry"
	"github.com/revtun/tunnel/pkg/protocol"
)

// Resolver looks up TXT records, as [net.Resolver] does.
type Resolver interface {
	LookupTXT(ctx context.Context, name string) ([]string, error)
}

const (
	// proofLabel stands before a custom domain where its owner says in a TXT record
	// whose it is.
	proofLabel = "_tunnel."
	// proofTime bounds the lookups for one bind; the client waits meanwhile.
	proofTime = 8 * time.Second
	// proofFresh is how long a record that was seen is not looked up again, and
	// proofStale how long it counts while name servers do not answer, so that a client
	// which reconnects does not lose its domain with them.
	proofFresh, proofStale = 5 * time.Minute, time.Hour
	// maxProofs bounds what is remembered, of about 200 bytes each.
	maxProofs = 10_000
	// maxLookups is how many one session may cause in a minute, and maxLookingUp how
	// many there are at once.
	maxLookups, maxLookingUp = 20, 32
)

// claimant is who claims names, by one connection.
type claimant struct {
	server   *Server
	identity auth.Identity
	owner    string // to whom its names belong
	group    string // who its held names count with
	log      *slog.Logger
	by       *certified // nil: it was a token, or nothing, that told who it is

	lookups struct { // of custom domains, within a minute
		since time.Time
		n     int
	}
}

// authorize checks what b claims, see claimant.authorize, until the session ends.
func (s *session) authorize(b *protocol.Bind) error {
	ctx, cancel := context.WithCancel(context.Background())
	var watching sync.WaitGroup
	defer watching.Wait()
	defer cancel()
	if len(b.Domains) > 0 {
		watching.Go(func() {
			select {
			case <-s.mux.Done():
				cancel() // nobody waits for the answer
			case <-ctx.Done():
			}
		})
	}
	byRight, err := s.claimant.authorize(ctx, b)
	if err != nil {
		return err
	}
	s.forgetRights()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.byRight == nil {
		s.byRight = make(map[string]bool)
	}
	maps.Copy(s.byRight, byRight)
	return nil
}

// authorize checks what b claims against the rights that the claimant has now (S11),
// and custom domains against the word of who has them. byRight tells of each domain
// whether it was the rights.
func (s *claimant) authorize(ctx context.Context, b *protocol.Bind) (byRight map[string]bool, err error) {
	rights := s.rights()
	// A name that the server picks may be any.
	if b.Name == "" && !slices.Contains(rights.Names, "*") || b.Name != "" && !rights.Name(b.Name) {
		return nil, s.nameForbidden(b.Name, rights.Names)
	}
	return s.authorizeDomains(ctx, b, rights)
}

func (s *claimant) authorizeDomains(ctx context.Context, b *protocol.Bind, rights auth.Rights) (byRight map[string]bool, err error) {
	if len(b.Domains) == 0 {
		return nil, nil
	}
	if b.Private || b.Kind != "" && b.Kind != protocol.KindHTTP && b.Kind != protocol.KindTLS {
		return nil, &protocol.Error{Code: protocol.DomainInvalid, Message: "a domain can lead to public endpoints of kind http and tls only"}
	}
	if most := s.server.c.MaxNames; len(b.Domains) > most {
		return nil, &protocol.Error{Code: protocol.TooManyNames, Message: fmt.Sprintf("%d domains are more than a session may have names, %d", len(b.Domains), most)}
	}
	ctx, cancel := context.WithTimeout(ctx, proofTime)
	defer cancel()
	byRight = make(map[string]bool)
	for _, domain := range b.Domains {
		if err := s.server.checkDomain(domain); err != nil {
			return nil, err
		}
		if byRight[domain] = rights.Domain(domain); !byRight[domain] {
			if err := s.prove(ctx, domain); err != nil {
				return nil, err
			}
		}
	}
	return byRight, nil
}

// forgetRights forgets by what right the session had domains that it has no more.
func (s *session) forgetRights() {
	s.mu.Lock()
	defer s.mu.Unlock()
	maps.DeleteFunc(s.byRight, func(domain string, _ bool) bool { return s.names[domain] == nil })
}

func (s *claimant) nameForbidden(name string, patterns []string) error {
	who, choose := "this token", "choose one"
	if s.by != nil {
		who = "this certificate"
	}
	e := &protocol.Error{
		Code: protocol.Forbidden, Message: who + " may not claim the name " + name,
		Hint: "ask the server's operator for the right",
	}
	if name == "" { // of tunnel-client alone
		e.Message, choose = who+" may not claim a name that the server picks", "choose one with --name"
	}
	if len(patterns) > 0 {
		e.Hint = choose + " that it may: " + strings.Join(patterns[:min(len(patterns), 10)], ", ")
	}
	return e
}

// checkDomain refuses what is no custom domain, whoever asks.
func (s *Server) checkDomain(domain string) error {
	if err := protocol.CheckDomain(domain); err != nil {
		return err
	}
	if !s.edge.Custom(domain) {
		return &protocol.Error{
			Code: protocol.DomainInvalid, Message: "the domain " + domain + " is the server's own, or below it",
			Hint: "a name below " + s.c.Domain + " is claimed with --name",
		}
	}
	return nil
}

// prove looks for the record by which the domain's owner says that it is the
// claimant's.
func (s *claimant) prove(ctx context.Context, domain string) error {
	if s.identity.OfSession() {
		return &protocol.Error{
			Code: protocol.Forbidden, Message: "nobody can tell whether the domain " + domain + " is yours without a token",
			Hint: "show a token: by --token-file or TUNNEL_TOKEN of tunnel-client, or in the field Authorization",
		}
	}
	known := s.server.proofs.age(proof{s.identity.ID, domain})
	if known < proofFresh {
		return nil
	}
	if now := time.Now(); now.Sub(s.lookups.since) >= time.Minute {
		s.lookups.since, s.lookups.n = now, 0
	}
	if s.lookups.n >= maxLookups {
		return &protocol.Error{
			Code: protocol.DomainUnverified, Message: fmt.Sprintf("this session had %d domains looked up within a minute", maxLookups),
			Hint: "try again in a minute",
		}
	}
	s.lookups.n++
	found, err := s.server.proofs.lookUp(ctx, proof{s.identity.ID, domain})
	switch {
	case found, err != nil && known < proofStale:
		return nil
	case err != nil:
		s.log.Info("domain cannot be looked up", "domain", domain, "err", err)
		return &protocol.Error{
			Code: protocol.DomainUnverified, Message: "the server could not look up " + proofLabel + domain,
			Hint: "try again later; the server's log says why",
		}
	}
	return &protocol.Error{
		Code: protocol.Forbidden, Message: "the domain " + domain + " does not say that it is yours",
		Hint: fmt.Sprintf("add this DNS record, or ask the server's operator for the right: %s%s. TXT %q", proofLabel, domain, s.identity.ID),
	}
}

// proof is that a domain is an identity's.
type proof struct{ id, domain string }

// proofs looks records up, and remembers those that it saw. It is made by newProofs.
type proofs struct {
	resolver Resolver
	slots    chan struct{}

	mu   sync.Mutex // guards the following
	seen map[proof]time.Time
}

func newProofs(r Resolver) *proofs {
	if r == nil {
		r = net.DefaultResolver
	}
	return &proofs{resolver: r, slots: make(chan struct{}, maxLookingUp), seen: make(map[proof]time.Time)}
}

// age is how long ago p was seen, and longer than any where it was not.
func (p *proofs) age(of proof) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	if at, ok := p.seen[of]; ok {
		return time.Since(at)
	}
	return proofStale
}

// lookUp reports whether there is the record. An error says that nobody knows.
func (p *proofs) lookUp(ctx context.Context, of proof) (bool, error) {
	select {
	case p.slots <- struct{}{}:
		defer func() { <-p.slots }()
	case <-ctx.Done():
		return false, ctx.Err()
	}
	records, err := p.resolver.LookupTXT(ctx, proofLabel+of.domain+".")
	var unknown *net.DNSError
	if err != nil && (!errors.As(err, &unknown) || !unknown.IsNotFound) {
		return false, err
	}
	found := slices.ContainsFunc(records, func(record string) bool { return strings.TrimSpace(record) == of.id })
	p.mu.Lock()
	defer p.mu.Unlock()
	if !found {
		delete(p.seen, of)
		return false, nil
	}
	if len(p.seen) >= maxProofs {
		clear(p.seen) // those that are needed are looked up again
	}
	p.seen[of] = time.Now()
	return true, nil
}

// bindDomains binds domains, which are authorized, beside the route of a name, and
// returns their URLs. With an error none is bound, nor is the name any more.
func (s *session) bindDomains(to *registry.Route, domains []string) (urls []string, err error) {
	for _, domain := range domains {
		err := s.tryBind(&registry.Route{Name: domain, Kind: to.Kind, Generation: to.Generation, Policy: to.Policy, Ends: to.Ends, HTTP: to.HTTP, Dial: to.Dial})
		if errors.Is(err, registry.ErrTaken) {
			err = &protocol.Error{
				Code: protocol.NameTaken, Message: "the domain " + domain + " is taken",
				Hint: "stop the client that has it",
			}
		}
		if err != nil {
			s.unbind(to.Name)
			return nil, err
		}
		s.mu.Lock()
		if s.domains == nil {
			s.domains = make(map[string][]string)
		}
		s.domains[to.Name] = append(s.domains[to.Name], domain)
		s.mu.Unlock()
		urls = append(urls, s.server.publicURL(domain))
	}
	return urls, nil
}

// takeDomains returns the releases of the domains beside name, and forgets them. A
// domain that is given back itself stands beside none any more. The caller holds mu.
func (s *session) takeDomains(name string) (all []registry.Release) {
	if isDomain(name) {
		for beside, list := range s.domains {
			s.domains[beside] = slices.DeleteFunc(list, func(one string) bool { return one == name })
		}
		return nil
	}
	for _, domain := range s.domains[name] {
		if release := s.names[domain]; release != nil {
			delete(s.names, domain)
			all = append(all, release)
		}
	}
	delete(s.domains, name)
	return all
}

// isDomain reports whether a name of the registry is a custom domain.
func isDomain(name string) bool { return strings.Contains(name, ".") }

// overclaims returns a name or domain that the session has and may not claim any
// more, or "". Who has a domain by its record keeps it.
func (s *session) overclaims() string {
	rights := s.server.c.Auth.Rights(s.identity)
	s.mu.Lock()
	defer s.mu.Unlock()
	for name := range s.names {
		switch {
		case isDomain(name) && s.byRight[name] && !rights.Domain(name):
			return name
		case protocol.CheckName(name) == nil && !rights.Name(name):
			return name
		}
	}
	return ""
}
