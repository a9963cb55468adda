package main

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"
)

// An archive is one file of a release: a folder with the binaries of a platform.
type archive struct {
	dir   string // the folder in it, and its name without what says the format
	zip   bool   // else .tar.gz
	at    time.Time
	files []file
}

// A file is one in an archive: data, or what is at path.
type file struct {
	name string // with slashes, below the folder
	path string
	data []byte
	run  bool // it is a program
}

func (a archive) name() string {
	if a.zip {
		return a.dir + ".zip"
	}
	return a.dir + ".tar.gz"
}

func (f file) content() ([]byte, error) {
	if f.path == "" {
		return f.data, nil
	}
	return os.ReadFile(f.path)
}

func (f file) mode() os.FileMode {
	if f.run {
		return 0o755
	}
	return 0o644
}

// write writes the archive. Nothing in it says who made it, where, or when.
func (a archive) write(w io.Writer) error {
	if a.zip {
		return a.writeZip(w)
	}
	z := gzip.NewWriter(w)
	t := tar.NewWriter(z)
	for _, f := range a.files {
		data, err := f.content()
		if err != nil {
			return err
		}
		err = t.WriteHeader(&tar.Header{
			Typeflag: tar.TypeReg, Format: tar.FormatUSTAR,
			Name: path.Join(a.dir, f.name), Size: int64(len(data)), Mode: int64(f.mode()), ModTime: a.at,
		})
		if err != nil {
			return err
		}
		if _, err := t.Write(data); err != nil {
			return err
		}
	}
	if err := t.Close(); err != nil {
		return err
	}
	return z.Close()
}

func (a archive) writeZip(w io.Writer) error {
	z := zip.NewWriter(w)
	for _, f := range a.files {
		data, err := f.content()
		if err != nil {
			return err
		}
		h := &zip.FileHeader{Name: path.Join(a.dir, f.name), Method: zip.Deflate, Modified: a.at.UTC()}
		h.SetMode(f.mode())
		into, err := z.CreateHeader(h)
		if err != nil {
			return err
		}
		if _, err := into.Write(data); err != nil {
			return err
		}
	}
	return z.Close()
}

// sumsName is the file that sha256sum -c reads.
const sumsName = "SHA256SUMS"

// publish writes the archives and their sums to the folder of the release, in
// place of those of an earlier one: what is there belongs together.
func (r *release) publish(made []archive) error {
	if err := os.MkdirAll(r.out, 0o755); err != nil {
		return err
	}
	for _, pattern := range []string{"tunnel_v*.tar.gz", "tunnel_v*.zip", sumsName} {
		old, err := filepath.Glob(filepath.Join(r.out, pattern))
		if err != nil {
			return err
		}
		for _, name := range old {
			if err := os.Remove(name); err != nil {
				return err
			}
		}
	}
	var sums strings.Builder
	for _, a := range made {
		var b bytes.Buffer
		if err := a.write(&b); err != nil {
			return fmt.Errorf("%s: %w", a.name(), err)
		}
		if err := os.WriteFile(filepath.Join(r.out, a.name()), b.Bytes(), 0o644); err != nil {
			return err
		}
		fmt.Fprintf(&sums, "%x  %s\n", sha256.Sum256(b.Bytes()), a.name())
	}
	if err := os.WriteFile(filepath.Join(r.out, sumsName), []byte(sums.String()), 0o644); err != nil {
		return err
	}
	_, err := fmt.Fprintf(r.log, "%s", sums.String())
	return err
}
