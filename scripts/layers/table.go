package main

import (
	_ "embed"
	"fmt"
	"slices"
	"strings"
)

//go:embed table.txt
var tableText string

// beside is the layer of a package that stands beside the layers.
const beside = -1

// rig is what trials may import beside pkg/.
const rig = "internal/rig"

// A place is where a package stands in the table.
type place struct {
	layer int
	side  string // "both", "server" or "client"; beside the layers what it may import of the module
}

// A table knows the place of each package, by its folder, or by "FOLDER/..." for the folder and all
// below that have no line of their own.
type table struct {
	places map[string]place
	never  map[[2]string]bool // importer, imported
}

func parseTable(text string) (*table, error) {
	t := &table{places: map[string]place{}, never: map[[2]string]bool{}}
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		if err := t.parseLine(line); err != nil {
			return nil, fmt.Errorf("table line %q: %w", line, err)
		}
	}
	return t, nil
}

func (t *table) parseLine(line string) error {
	cells := strings.Split(line, "|")
	head := strings.TrimSpace(cells[0])
	cells = cells[1:]
	var layer int
	switch {
	case head == "layer":
		return nil
	case head == "never":
		pair := strings.Fields(strings.Join(cells, " "))
		if len(pair) != 2 {
			return fmt.Errorf("want an importer and what it imports, have %d words", len(pair))
		}
		t.never[[2]string{pair[0], pair[1]}] = true
		return nil
	case slices.Contains([]string{"pkg/", "nothing", "trials", "anything"}, head):
		if len(cells) != 1 {
			return fmt.Errorf("want 1 cell, have %d", len(cells))
		}
		return t.add(cells[0], place{beside, head})
	}
	if _, err := fmt.Sscanf(head, "L%d", &layer); err != nil {
		return fmt.Errorf("unknown kind of line: %w", err)
	}
	if len(cells) != 3 {
		return fmt.Errorf("want 3 cells, have %d", len(cells))
	}
	for i, side := range []string{"both", "server", "client"} {
		if err := t.add(cells[i], place{layer, side}); err != nil {
			return err
		}
	}
	return nil
}

func (t *table) add(cell string, p place) error {
	for _, pkg := range strings.Fields(cell) {
		if _, ok := t.places[pkg]; ok {
			return fmt.Errorf("%s is there twice", pkg)
		}
		t.places[pkg] = p
	}
	return nil
}

// find gives the place of the package in dir: its own, or that of the nearest pattern above it.
func (t *table) find(dir string) (place, bool) {
	if p, ok := t.places[dir]; ok {
		return p, true
	}
	for {
		if p, ok := t.places[dir+"/..."]; ok {
			return p, true
		}
		i := strings.LastIndexByte(dir, '/')
		if i < 0 {
			return place{}, false
		}
		dir = dir[:i]
	}
}

// objection says why from must not import to, or "" if it may. A package that the table does not
// know meets no objection here: it is a problem of its own.
func (t *table) objection(from, to string) string {
	f, ok := t.find(from)
	g, ok2 := t.find(to)
	if !ok || !ok2 {
		return ""
	}
	switch {
	case f.side == "anything":
		return ""
	case t.never[[2]string{from, to}]:
		return "the table says never"
	case f.side == "trials" && to == rig:
		return ""
	case g.layer == beside:
		return "nothing imports what stands beside the layers"
	case f.side == "nothing":
		return "it stands alone and imports nothing of this module"
	case f.side == "pkg/", f.side == "trials":
		if !strings.HasPrefix(to, "pkg/") {
			return "it imports only what others may import, pkg/"
		}
		return ""
	case f.side == "both" && g.side != "both":
		return "what both sides share imports only what both share"
	case g.side != "both" && g.side != f.side:
		return fmt.Sprintf("the %s side does not import the %s side", f.side, g.side)
	case g.layer >= f.layer:
		return fmt.Sprintf("imports go down, and L%d to L%d does not", f.layer, g.layer)
	}
	return ""
}
