package main

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"
)

const (
	maxFileLines = 600
	maxFuncLines = 80 // from "func" to the closing brace
)

// A checker collects what it objects to in one tree.
type checker struct {
	fsys     fs.FS
	module   string
	table    *table
	fset     *token.FileSet
	packages map[string]*pkg // by folder
	problems []string
}

// pkg is what the checker remembers of the files of one folder.
type pkg struct {
	commented bool // a file other than a test has a package comment
	onlyTests bool
	testDoc   bool // a test file has one
}

// check reads the Go files below fsys, the root of module, except those that the go command ignores
// whatever the platform, and returns what is wrong with them, one line each.
func check(fsys fs.FS, module string, t *table) ([]string, error) {
	c := &checker{
		fsys: fsys, module: module, table: t,
		fset: token.NewFileSet(), packages: map[string]*pkg{},
	}
	if err := fs.WalkDir(fsys, ".", c.visit); err != nil {
		return nil, fmt.Errorf("read the source: %w", err)
	}
	for dir, p := range c.packages {
		if _, ok := t.find(dir); !ok {
			c.problem(dir, "the package is not in scripts/layers/table.txt: add it there, with its layer and side")
		}
		if !p.commented && !(p.onlyTests && p.testDoc) {
			c.problem(dir, "the package has no package comment")
		}
	}
	slices.Sort(c.problems)
	return c.problems, nil
}

func (c *checker) problem(where, format string, args ...any) {
	c.problems = append(c.problems, where+": "+fmt.Sprintf(format, args...))
}

func (c *checker) visit(name string, d fs.DirEntry, err error) error {
	if err != nil {
		return err
	}
	if !d.IsDir() {
		if path.Ext(name) == ".go" && !ignored(d.Name()) {
			return c.file(name)
		}
		return nil
	}
	if name == "." {
		return nil
	}
	if ignored(d.Name()) || slices.Contains([]string{"testdata", "vendor", "node_modules"}, d.Name()) {
		return fs.SkipDir
	}
	if _, err := fs.Stat(c.fsys, path.Join(name, "go.mod")); err == nil {
		return fs.SkipDir // another module
	}
	return nil
}

// ignored says whether the go command passes over a file or folder of that name.
func ignored(name string) bool { return name[0] == '.' || name[0] == '_' }

func (c *checker) file(name string) error {
	src, err := fs.ReadFile(c.fsys, name)
	if err != nil {
		return err
	}
	f, err := parser.ParseFile(c.fset, name, src, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		c.problem(name, "%v", err)
		return nil
	}
	test := strings.HasSuffix(name, "_test.go")
	c.comment(path.Dir(name), f, test)
	if !test {
		c.imports(path.Dir(name), f)
	}
	if ast.IsGenerated(f) {
		return nil
	}
	if n := lines(src); n > maxFileLines {
		c.problem(name, "the file has %d lines, more than %d", n, maxFileLines)
	}
	c.functions(f)
	return nil
}

func lines(src []byte) int {
	n := bytes.Count(src, []byte("\n"))
	if len(src) > 0 && src[len(src)-1] != '\n' {
		n++
	}
	return n
}

func (c *checker) comment(dir string, f *ast.File, test bool) {
	p := c.packages[dir]
	if p == nil {
		p = &pkg{onlyTests: true}
		c.packages[dir] = p
	}
	// Text leaves out directives, so a lone //go:build is no comment.
	commented := strings.TrimSpace(f.Doc.Text()) != ""
	if test {
		p.testDoc = p.testDoc || commented
		return
	}
	p.onlyTests = false
	p.commented = p.commented || commented
}

func (c *checker) imports(dir string, f *ast.File) {
	for _, spec := range f.Imports {
		imported, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			continue // the parser has accepted it, so there is none
		}
		to, ok := strings.CutPrefix(imported, c.module+"/")
		if imported == c.module {
			to, ok = ".", true
		}
		if !ok {
			continue
		}
		if why := c.table.objection(dir, to); why != "" {
			c.problem(c.where(spec), "%s imports %s: %s", dir, to, why)
		}
	}
}

// functions measures each function declaration, and each literal outside of one.
func (c *checker) functions(f *ast.File) {
	ast.Inspect(f, func(n ast.Node) bool {
		var name string
		switch n := n.(type) {
		case *ast.FuncDecl:
			name = n.Name.Name
		case *ast.FuncLit:
			name = "the function"
		default:
			return true
		}
		length := c.fset.Position(n.End()).Line - c.fset.Position(n.Pos()).Line + 1
		if length > maxFuncLines {
			c.problem(c.where(n), "%s has %d lines, more than %d", name, length, maxFuncLines)
		}
		return false
	})
}

func (c *checker) where(n ast.Node) string {
	p := c.fset.Position(n.Pos())
	return fmt.Sprintf("%s:%d", p.Filename, p.Line)
}
