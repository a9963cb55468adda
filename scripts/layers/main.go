// Command layers checks the shape of the module's source: that imports follow table.txt, that files
// and functions stay short, and that every package has a comment. It prints one line for each
// violation and exits with 1 if there was any. Run it in the module's root:
//
//	go run ./scripts/layers
//
// It reads the source alone, whatever its build constraints say, so it also sees the files of other
// operating systems, and works while the module does not compile.
package main

import (
	"errors"
	"fmt"
	"os"
	"strings"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "layers:", err)
		os.Exit(1)
	}
}

func run() error {
	mod, err := os.ReadFile("go.mod")
	if err != nil {
		return fmt.Errorf("run it in the module's root: %w", err)
	}
	module, err := modulePath(string(mod))
	if err != nil {
		return err
	}
	t, err := parseTable(tableText)
	if err != nil {
		return err
	}
	problems, err := check(os.DirFS("."), module, t)
	if err != nil {
		return err
	}
	for _, p := range problems {
		fmt.Println(p)
	}
	if len(problems) > 0 {
		return fmt.Errorf("problems: %d", len(problems))
	}
	return nil
}

// modulePath finds the path in the text of a go.mod.
func modulePath(mod string) (string, error) {
	for line := range strings.Lines(mod) {
		if f := strings.Fields(line); len(f) >= 2 && f[0] == "module" {
			return strings.Trim(f[1], `"`), nil
		}
	}
	return "", errors.New("go.mod names no module")
}
