package main

import (
	"fmt"
	"os"
	"path/filepath"
)

// urlFile is where other programs find the public URL while it answers.
type urlFile struct {
	path    string // "": nobody wants it
	content string // "": not written
}

// newURLFile checks that path can be written. A file that is there stays until
// the name is claimed: it may be of another client that runs, which refuses this
// one the name. It may also be of one that was killed: who waits for the file
// removes it first.
func newURLFile(path string) (*urlFile, error) {
	if path == "" {
		return &urlFile{}, nil
	}
	info, err := os.Stat(path)
	if err == nil && !info.Mode().IsRegular() {
		return nil, fmt.Errorf("--url-file %s is not a regular file", path)
	}
	probe, err := writeTemp(filepath.Dir(path), nil, 0o600)
	if err == nil {
		err = os.Remove(probe)
	}
	if err != nil {
		return nil, fmt.Errorf("--url-file %s cannot be written: %w", path, err)
	}
	return &urlFile{path: path}, nil
}

func (u *urlFile) write(url string) error {
	if u.path == "" {
		return nil
	}
	content := printable(url) + "\n"
	if err := replaceFile(u.path, []byte(content), 0o644); err != nil {
		return fmt.Errorf("write --url-file: %w", err)
	}
	u.content = content
	return nil
}

// remove leaves a file alone that another client has written meanwhile.
func (u *urlFile) remove() {
	if u.content == "" {
		return
	}
	if now, err := os.ReadFile(u.path); err == nil && string(now) == u.content {
		os.Remove(u.path)
	}
}
