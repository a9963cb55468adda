package main

import (
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/revtun/tunnel/internal/files"
	"github.com/revtun/tunnel/internal/forward"
)

const fileDescription = `DIR is a folder, such as . or ./dist. Its files are served, and nothing outside of it: links
that lead there are refused, and so are absolute links. No local port is opened. Options may
stand before and after DIR.

A folder without an index.html is shown as a list. What begins with a dot is neither served
nor listed without --hidden, but for /.well-known. DIR may be removed and made again while
it is served, as builds do.

The name, the exit codes and the end are those of tunnel-client http.`

// fileFlags are those of file.
func fileFlags() []cli.Flag {
	return append(append(append(commonFlags(), siteFlags()...), inspectFlags()...), spaFlag(), hiddenFlag())
}

func spaFlag() *cli.BoolFlag {
	return &cli.BoolFlag{Name: "spa", EnvVars: env("spa"), Usage: "answer with DIR's index.html where there is no file and the path has no extension, for apps that have their routes in the browser; no folder is listed"}
}

func hiddenFlag() *cli.BoolFlag {
	return &cli.BoolFlag{Name: "hidden", EnvVars: env("hidden"), Usage: "serve and list what begins with a dot, too, such as .git and .env"}
}

// hidden is f where it is for folders alone: it is there for file:// targets.
func hidden(f *cli.BoolFlag) *cli.BoolFlag {
	f.Hidden = true
	return f
}

// folder returns the folder that is to be served, where it is one.
func folder(c *cli.Context) (dir string, ok bool, err error) {
	args, command := c.Args().Slice(), c.Command.Name
	of := len(args) > 0 && strings.HasPrefix(strings.ToLower(args[0]), "file:")
	switch {
	case command == "file" && len(args) == 0:
		return "", false, errors.New("file needs a DIR, the folder to serve: tunnel-client file . (see tunnel-client file --help)")
	case command == "file" && len(args) > 1:
		return "", false, fmt.Errorf("file takes one DIR, got %d: %s", len(args), strings.Join(args, " "))
	case of && (command == "file" || command == "http" && len(args) == 1):
		dir, err = parseFileURL(args[0])
		return dir, true, err
	case command == "file" && args[0] == "":
		return "", false, errors.New("DIR is empty: use . for the folder that you are in")
	case command == "file":
		return args[0], true, nil
	case (command == "http" || command == "exec") && (c.Bool("spa") || c.Bool("hidden")):
		return "", false, errors.New("--spa and --hidden are for folders: use tunnel-client file DIR, or http file:///DIR")
	}
	return "", false, nil
}

// parseFileURL reads file:///PATH (RFC 8089).
func parseFileURL(s string) (string, error) {
	u, err := url.Parse(s)
	switch {
	case err != nil:
		return "", fmt.Errorf("target %q is not an address: write file:///PATH, with %%20 for a space, or tunnel-client file DIR", s)
	case u.Host != "" && !strings.EqualFold(u.Host, "localhost") || u.User != nil, !strings.HasPrefix(u.Path, "/"):
		return "", fmt.Errorf("target %q is no folder of this machine: write file:///PATH, with three slashes, or tunnel-client file DIR", s)
	case u.RawQuery != "" || u.Fragment != "":
		return "", fmt.Errorf("target %q has a ? or #: write %%3F or %%23 for those in names, or tunnel-client file DIR", s)
	}
	path := u.Path
	if runtime.GOOS == "windows" {
		path = strings.TrimPrefix(path, "/") // /C:/DIR
	}
	return filepath.FromSlash(path), nil
}

// serveFolder makes the folder the target.
func (f *config) serveFolder(c *cli.Context, dir string) error {
	for _, name := range []string{"host-header", "insecure-upstream", "app-timeout", "proxy-protocol"} {
		if c.IsSet(name) {
			return fmt.Errorf("--%s is for a local app, and the target is a folder: leave it out", name)
		}
	}
	if f.listen.Private {
		return errors.New("--private carries connections to a local app, and the target is a folder: leave it out, or serve the folder by a web server of your own")
	}
	h, err := files.New(files.Options{Dir: dir, SPA: c.Bool("spa"), Hidden: c.Bool("hidden"), Log: f.log})
	if err != nil {
		return err
	}
	path := filepath.ToSlash(h.Dir())
	if !strings.HasPrefix(path, "/") {
		path = "/" + path // C:/DIR
	}
	f.target = forward.Target{Scheme: "file", Host: (&url.URL{Path: path}).EscapedPath()}
	f.forward.Handler, f.forward.Timeout = h, 0
	return nil
}

// isPath reports whether a word where something else should be is the path of a file, there or not.
func isPath(word string) bool {
	return strings.HasPrefix(word, "./") || strings.HasPrefix(word, "../") || strings.HasPrefix(word, "~/") || filepath.IsAbs(word)
}

// isFolder reports whether a word where something else should be names a folder.
func isFolder(word string) bool {
	info, err := os.Stat(word)
	return err == nil && info.IsDir()
}
