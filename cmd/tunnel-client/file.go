package main

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
)

// tempPattern is for files that get their name when they are complete.
const tempPattern = ".tmp-*"

// replaceFile makes data the content of path at once: who reads finds the old
// content or the new, never a part.
func replaceFile(path string, data []byte, mode fs.FileMode) error {
	temp, err := writeTemp(filepath.Dir(path), data, mode)
	if err != nil {
		return err
	}
	if err := os.Rename(temp, path); err != nil {
		os.Remove(temp)
		return err
	}
	return nil
}

// createFile is replaceFile where there is no file yet. The error is fs.ErrExist
// where there is one, also if another process was faster.
func createFile(path string, data []byte, mode fs.FileMode) error {
	temp, err := writeTemp(filepath.Dir(path), data, mode)
	if err != nil {
		return err
	}
	defer os.Remove(temp)
	err = os.Link(temp, path)
	if err == nil || errors.Is(err, fs.ErrExist) {
		return err
	}
	return os.Rename(temp, path) // a file system without links
}

func writeTemp(dir string, data []byte, mode fs.FileMode) (name string, err error) {
	f, err := os.CreateTemp(dir, tempPattern)
	if err != nil {
		return "", err
	}
	_, err = f.Write(data)
	if err == nil && mode != 0o600 { // which CreateTemp gives
		err = f.Chmod(mode)
	}
	if closed := f.Close(); err == nil {
		err = closed
	}
	if err != nil {
		os.Remove(f.Name())
		return "", err
	}
	return f.Name(), nil
}
