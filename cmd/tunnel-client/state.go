package main

import (
	"cmp"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/revtun/tunnel/pkg/protocol"
	"github.com/revtun/tunnel/pkg/tunnel"
)

const (
	// maxKept is how many names, and keys of links, are kept; the ones not used for the
	// longest time go first.
	maxKept = 500

	// maxStateFile bounds what is read of one file, in bytes.
	maxStateFile = 64 << 10

	machineKeySize = 32

	// transportTime is how long a server counts as one that the raw upgrade does not
	// reach. Networks change, and raw is the faster one.
	transportTime = 24 * time.Hour

	// maxAhead is how far the clock of a file system may be ahead of ours.
	maxAhead = 24 * time.Hour
)

// state is what outlives the process, for the comfort of the next start: nothing
// depends on it. A file each, so that clients which start at the same time never
// change the same one:
//
//	machine-key      32 random bytes in hex
//	names/HASH.json  the public name for one place
//	links/HASH       the key of one name's share links
//	certs/           certificates of tls --terminate, with their keys
//	websocket/HASH   empty; something on the way to the server shuts raw out
type state struct{ dir string }

// place is where a name belongs.
type place struct {
	Server    string `json:"server"`
	Directory string `json:"directory"`
	Target    string `json:"target"`
}

// kept is the content of a file in names.
type kept struct {
	place
	Name string `json:"name"`
}

// openState makes the directory for the state where it is missing.
func openState() (*state, error) {
	dir, err := stateHome()
	if err != nil {
		return nil, err
	}
	s := &state{dir: filepath.Join(dir, "tunnel-client")}
	// Some of it is secret, the rest tells what the user works on.
	return s, errors.Join(
		os.MkdirAll(filepath.Join(s.dir, "names"), 0o700),
		os.MkdirAll(filepath.Join(s.dir, "links"), 0o700),
		os.MkdirAll(filepath.Join(s.dir, "websocket"), 0o700))
}

// stateHome is where programs keep such things: XDG_STATE_HOME of the XDG base
// directory specification, or the system's own place.
func stateHome() (string, error) {
	if dir := os.Getenv("XDG_STATE_HOME"); filepath.IsAbs(dir) {
		return dir, nil
	}
	switch runtime.GOOS {
	case "darwin", "ios", "windows":
		return os.UserConfigDir()
	}
	home, err := os.UserHomeDir()
	return filepath.Join(home, ".local", "state"), err
}

// machineToken is what is shown to server where the user has no token. A server
// that lets everyone in then knows this machine and user again, and gives a
// client that crashed its name back at once, before the hold is over. It is
// another one for each server, so that none learns what to show to the next.
func (s *state) machineToken(server string) (string, error) {
	key, err := s.machineKey()
	if err != nil {
		return "", fmt.Errorf("machine key: %w", err)
	}
	m := hmac.New(sha256.New, key)
	io.WriteString(m, server)
	return "machine-" + hex.EncodeToString(m.Sum(nil)), nil
}

func (s *state) machineKey() ([]byte, error) {
	path := filepath.Join(s.dir, "machine-key")
	for range 3 { // read; write and read; once more where another process wrote
		data, err := readSmall(path)
		if err == nil {
			key, err := hex.DecodeString(strings.TrimSpace(string(data)))
			if err == nil && len(key) == machineKeySize {
				return key, nil
			}
		}
		fresh := make([]byte, machineKeySize)
		rand.Read(fresh)
		write := replaceFile // what is damaged is of no use to anyone
		switch {
		case errors.Is(err, fs.ErrNotExist):
			write = createFile
		case err != nil:
			return nil, err
		}
		err = write(path, []byte(hex.EncodeToString(fresh)+"\n"), 0o600)
		if err != nil && !errors.Is(err, fs.ErrExist) {
			return nil, err
		}
	}
	return nil, fmt.Errorf("%s does not keep what is written to it", path)
}

// newPlace is the place of a client that is started here, with the directory's
// real path.
func newPlace(server, target string) (place, error) {
	dir, err := os.Getwd()
	if err != nil {
		return place{}, err
	}
	if real, err := filepath.EvalSymlinks(dir); err == nil {
		dir = real
	}
	return place{Server: server, Directory: dir, Target: target}, nil
}

func (s *state) path(p place) string {
	sum := sha256.Sum256([]byte(p.Server + "\x00" + p.Directory + "\x00" + p.Target))
	return filepath.Join(s.dir, "names", hex.EncodeToString(sum[:12])+".json")
}

// name returns the name that is kept for p, or "" with the reason why a file
// that is there can't be used.
func (s *state) name(p place) (string, error) {
	data, err := readSmall(s.path(p))
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	var k kept
	if err := json.Unmarshal(data, &k); err != nil {
		return "", fmt.Errorf("%s is damaged: %w", s.path(p), err)
	}
	if err := protocol.CheckName(k.Name); err != nil || k.place != p {
		return "", fmt.Errorf("%s is damaged: it holds no name for this place", s.path(p))
	}
	now := time.Now()
	_ = os.Chtimes(s.path(p), now, now) // it is in use; where that fails it is forgotten sooner
	return k.Name, nil
}

// keep remembers name for p. A good name that is there stays: it is the one
// whose URL was handed around.
func (s *state) keep(p place, name string) error {
	data, err := json.Marshal(kept{place: p, Name: name})
	if err != nil {
		return err
	}
	data = append(data, '\n')
	err = createFile(s.path(p), data, 0o600)
	if errors.Is(err, fs.ErrExist) {
		if old, bad := s.name(p); bad == nil && old != "" {
			return nil
		}
		err = replaceFile(s.path(p), data, 0o600)
	}
	s.prune("names")
	return err
}

// transport is what to try first with server.
func (s *state) transport(server string) tunnel.Transport {
	info, err := os.Stat(s.transportFile(server))
	if err != nil {
		return tunnel.Raw
	}
	// A file of the future is of a clock that was set back since, and says nothing.
	if time.Since(info.ModTime()).Abs() > transportTime {
		return tunnel.Raw
	}
	return tunnel.WebSocket
}

// keepTransport remembers what server was reached by. The time of a file that is
// there stays: raw is to be tried again.
func (s *state) keepTransport(server string, t tunnel.Transport) error {
	path := s.transportFile(server)
	if t != tunnel.WebSocket {
		if err := os.Remove(path); !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return nil
	}
	if s.transport(server) == tunnel.WebSocket {
		return nil
	}
	return replaceFile(path, nil, 0o600)
}

func (s *state) transportFile(server string) string {
	sum := sha256.Sum256([]byte(server))
	return filepath.Join(s.dir, "websocket", hex.EncodeToString(sum[:12]))
}

// prune forgets those files of a folder that were not used for the longest time.
func (s *state) prune(folder string) {
	dir := filepath.Join(s.dir, folder)
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) <= maxKept {
		return
	}
	used := make(map[string]time.Time, len(entries))
	for _, e := range entries {
		// Those of the future are of a clock that was set back since. They go first, or
		// what is new would go before it was used once.
		if info, err := e.Info(); err == nil && time.Until(info.ModTime()) < maxAhead {
			used[e.Name()] = info.ModTime()
		}
	}
	slices.SortFunc(entries, func(a, b fs.DirEntry) int {
		return cmp.Or(used[a.Name()].Compare(used[b.Name()]), cmp.Compare(a.Name(), b.Name()))
	})
	for _, e := range entries[:len(entries)-maxKept] {
		_ = os.Remove(filepath.Join(dir, e.Name())) // another client may be faster
	}
}

// readSmall reads a file of at most maxStateFile bytes.
func readSmall(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxStateFile+1))
	if err == nil && len(data) > maxStateFile {
		err = fmt.Errorf("%s is over %d bytes", path, maxStateFile)
	}
	return data, err
}
