package main

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/revtun/tunnel/pkg/protocol"
	"github.com/revtun/tunnel/pkg/tunnel"
)

// links makes share links. Whoever has a name's key can: the server gets what verifies
// them alone, and links are good as long as the key is kept.
type links struct {
	life   time.Duration
	revoke bool               // those that were made before
	key    ed25519.PrivateKey // of the name; nil before it is being claimed
}

// newLinks reads the flags; nil: no links are wanted.
func newLinks(c *cli.Context) (*links, error) {
	l := &links{life: c.Duration("share-link"), revoke: c.Bool("revoke-links")}
	switch {
	case l.life == 0 && l.revoke && !c.IsSet("share-link"):
		return nil, errors.New("--revoke-links is for --share-link TIME, which makes a new link; without that flag no link is good at all")
	case l.life == 0 && !c.IsSet("share-link"):
		return nil, nil // one that is given as 0 was not meant to let everybody in
	case l.life < time.Second, l.life > protocol.MaxTTL:
		return nil, fmt.Errorf("--share-link %s is not how long a link is good: use a time such as 24h", l.life)
	}
	return l, nil
}

// url is a link to public that is good until then.
func (l *links) url(public string, until time.Time) string {
	return strings.TrimSuffix(public, "/") + "/?" + protocol.LinkName + "=" + protocol.SignLink(l.key, until)
}

// linked is claim of a name with the key of its share links.
func (c *config) linked(claim claiming) claiming {
	if c.links == nil {
		return claim
	}
	return func(ctx context.Context, o tunnel.Options) (endpoint, error) {
		server := canonical(c.client.Server)
		state, broken := openState()
		if o.Name != "" && broken == nil && !c.links.revoke {
			c.links.key, broken = state.linkKey(server, o.Name)
		} else {
			c.links.key = nil
		}
		if c.links.key == nil {
			_, c.links.key, _ = ed25519.GenerateKey(rand.Reader)
		}
		s := protocol.Share{}
		if o.Share != nil {
			s = *o.Share
		}
		s.Link = c.links.key.Public().(ed25519.PublicKey)
		o.Share = &s
		l, err := claim(ctx, o)
		if err != nil {
			return nil, err
		}
		if broken == nil {
			broken = state.keepLinkKey(server, l.Name(), c.links.key)
		}
		if broken != nil {
			c.log.Warn("the key of the share link cannot be kept: the link is good until this command ends", "err", broken)
		}
		return l, nil
	}
}

// linkKey is the key of name's share links; nil: there is none. One that is damaged is an
// error, as links that were given out are lost with it.
func (s *state) linkKey(server, name string) (ed25519.PrivateKey, error) {
	data, err := readSmall(s.linkFile(server, name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	seed, err := hex.DecodeString(strings.TrimSpace(string(data)))
	if err != nil || len(seed) != ed25519.SeedSize {
		return nil, fmt.Errorf("%s is damaged: remove it to have new links", s.linkFile(server, name))
	}
	return ed25519.NewKeyFromSeed(seed), nil
}

func (s *state) keepLinkKey(server, name string, key ed25519.PrivateKey) error {
	err := replaceFile(s.linkFile(server, name), []byte(hex.EncodeToString(key.Seed())+"\n"), 0o600)
	s.prune("links")
	return err
}

func (s *state) linkFile(server, name string) string {
	sum := sha256.Sum256([]byte(server + "\x00" + name))
	return filepath.Join(s.dir, "links", hex.EncodeToString(sum[:12]))
}
