package files

import (
	"net/url"
	"strings"
)

// place is where a request's path leads.
type place struct {
	name  string // below the folder, with slashes; ".": the folder itself
	slash bool   // the path ends in one
}

// locate reads a path that is percent-encoded. It is not ok where one of its names can be
// no file's here. Names are told apart before they are decoded, so that %2F is no slash.
func (h *Handler) locate(escaped string) (place, bool) {
	rest, ok := strings.CutPrefix(escaped, "/")
	if !ok || rest == "" {
		return place{name: ".", slash: true}, ok
	}
	rest, slash := strings.CutSuffix(rest, "/")
	names := strings.Split(rest, "/")
	for i, one := range names {
		name, err := url.PathUnescape(one)
		if err != nil || !h.serves(name, i == 0) {
			return place{}, false
		}
		names[i] = name
	}
	return place{name: strings.Join(names, "/"), slash: slash}, true
}

// serves reports whether what has this name in a folder is served. top is the folder
// that is served itself.
func (h *Handler) serves(name string, top bool) bool {
	switch {
	case name == "", name == ".", name == "..", strings.ContainsAny(name, "/\x00"):
		return false
	case name[0] == '.' && !h.o.Hidden && !(top && name == ".well-known"):
		return false
	}
	return !h.windows || windowsName(name)
}

// windowsName reports whether a name is a file's own on Windows. Others are devices
// there, streams of files, paths, or second names, by which a hidden file could be had.
func windowsName(name string) bool {
	for i := range len(name) {
		switch c := name[i]; {
		case c < ' ', strings.IndexByte(`<>:"/\|?*`, c) >= 0:
			return false
		case c == '~' && i+1 < len(name) && '0' <= name[i+1] && name[i+1] <= '9':
			return false // GIT~1 is .git
		}
	}
	if last := name[len(name)-1]; last == '.' || last == ' ' {
		return false // it is the name without
	}
	base, _, _ := strings.Cut(name, ".")
	switch base = strings.ToUpper(strings.TrimRight(base, " ")); base {
	case "CON", "PRN", "AUX", "NUL", "CONIN$", "CONOUT$", "CLOCK$":
		return false
	}
	for _, port := range []string{"COM", "LPT"} {
		if digit, ok := strings.CutPrefix(base, port); ok && len([]rune(digit)) == 1 && strings.Contains("0123456789¹²³", digit) {
			return false
		}
	}
	return true
}

// escape is a name as a part of a URL's path.
func escape(name string) string { return url.PathEscape(name) }
