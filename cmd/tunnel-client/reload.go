package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
)

// configName is the file that is looked for without --config.
const configName = "tunnel.yaml"

// sources are the files of a configuration.
type sources struct {
	paths []string
	used  snapshot // what is exposed, or was refused
	seen  snapshot // when they were looked at last
}

// snapshot is what the files hold at one time.
type snapshot struct {
	contents [][]byte
	err      error // one cannot be read
}

func (s snapshot) equal(o snapshot) bool {
	if s.err != nil || o.err != nil {
		return fmt.Sprint(s.err) == fmt.Sprint(o.err)
	}
	return slices.EqualFunc(s.contents, o.contents, bytes.Equal)
}

// openSources reads the files that the user named, or the one that is there.
func openSources(paths []string) (*sources, error) {
	if len(paths) == 0 {
		path, err := defaultConfig()
		if err != nil {
			return nil, err
		}
		paths = []string{path}
	}
	s := &sources{paths: paths}
	s.used = s.read()
	return s, s.used.err
}

// defaultConfig is the file that is used where none is named.
func defaultConfig() (string, error) {
	places := []string{configName}
	if dir, err := configHome(); err == nil {
		places = append(places, filepath.Join(dir, configName))
	}
	for _, path := range places {
		if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
			return path, nil
		}
	}
	return "", fmt.Errorf("there is no %s here: tunnel-client config init writes one, --config FILE names another", configName)
}

// configHome is the directory for what the user has set.
func configHome() (string, error) {
	dir, err := os.UserConfigDir()
	return filepath.Join(dir, "tunnel-client"), err
}

func (s *sources) read() snapshot {
	var now snapshot
	for _, path := range s.paths {
		data, err := readFile(path)
		if err != nil {
			return snapshot{err: err}
		}
		now.contents = append(now.contents, data)
	}
	return now
}

// look reports whether the files have changed. What was written in parts, or is away while
// an editor replaces it, is not looked at before it stays as it is.
func (s *sources) look() bool {
	now := s.read()
	settled := now.equal(s.seen)
	s.seen = now
	return settled && !now.equal(s.used)
}

// reload applies what has changed in the files. asked: the user wants it now.
func (s *starter) reload(drain, end context.Context, asked bool) {
	if asked {
		s.sources.seen = s.sources.read()
	} else if !s.sources.look() {
		return
	}
	s.sources.used = s.sources.seen // a mistake is told once
	if err := s.sources.used.err; err != nil {
		s.refuse(err)
		return
	}
	specs, err := s.plan(s.sources.used.contents)
	if err == nil && len(specs) == 0 {
		err = errors.New("none of the endpoints that were started is in it")
	}
	if err != nil {
		s.refuse(err)
		return
	}
	added, changed, removed := s.apply(drain, end, specs)
	s.log.Info("configuration applied", "added", added, "changed", changed, "removed", removed, "endpoints", len(specs))
}

// refuse tells what is wrong with the new configuration.
func (s *starter) refuse(err error) {
	all := wrong(err)
	for _, one := range all {
		s.log.Error("the new configuration is not used, the old one goes on", "err", one)
	}
	if shows, ok := s.out.(*screen); ok {
		shows.refuse(all)
	}
}
