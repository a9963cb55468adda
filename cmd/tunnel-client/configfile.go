package main

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// configVersion is the one version of the files' form that there is.
const configVersion = "1"

// maxConfigFile bounds what is read of one file, in bytes.
const maxConfigFile = 1 << 20

// position is where something stands.
type position struct {
	file string
	line int // 0: the file as a whole
}

func (p position) String() string {
	if p.line == 0 {
		return p.file
	}
	return p.file + ":" + strconv.Itoa(p.line)
}

// problem is a mistake and where it is.
type problem struct {
	at    position
	err   error
	about []string // options, and first the one that is to blame; "": none of them is
}

func (p problem) Error() string {
	if p.at == (position{}) {
		return p.err.Error() // of the environment
	}
	return p.at.String() + ": " + p.err.Error()
}

func (p problem) Unwrap() error { return p.err }

// problems are all that is wrong with a configuration, a line each.
type problems []problem

func (p problems) Error() string {
	lines := make([]string, len(p))
	for i, one := range p {
		lines[i] = one.Error()
	}
	return strings.Join(lines, "\n")
}

// add keeps a problem once: what is wrong at the top of a file is so for each endpoint.
func (p *problems) add(at position, format string, args ...any) {
	one := problem{at: at, err: fmt.Errorf(format, args...)}
	if !slices.ContainsFunc(*p, func(old problem) bool { return old.Error() == one.Error() }) {
		*p = append(*p, one)
	}
}

// err is nil where there are none. They are in the order of the files' lines.
func (p problems) err() error {
	if len(p) == 0 {
		return nil
	}
	slices.SortStableFunc(p, func(a, b problem) int {
		return cmp.Or(cmp.Compare(a.at.file, b.at.file), cmp.Compare(a.at.line, b.at.line))
	})
	return p
}

// setting is the value of a key, with its variables filled in.
type setting struct {
	at       position
	endpoint string // that it is of; "": it stands at the top
	values   []string
	list     bool
	truth    bool // it is true or false, without quotes
	broken   bool // what is wrong has been said
}

// called is key as mistakes are told of it, with its endpoint.
func (s setting) called(key string) string {
	if s.endpoint == "" {
		return key
	}
	return "endpoint " + s.endpoint + ": " + key
}

// section is a part of the files: their top, or an endpoint.
type section struct {
	at       position
	settings map[string]setting
}

// written is what the files say. Of the same key in two files the later one counts,
// and an endpoint that is in two has the options of both.
type written struct {
	top       section
	order     []string // the endpoints, as they stand in the files
	endpoints map[string]*section
	problems  problems
}

// parseConfig reads the contents of paths. It goes on after a mistake, so that the user
// sees all of them.
func parseConfig(paths []string, contents [][]byte) *written {
	w := &written{top: section{settings: make(map[string]setting)}, endpoints: make(map[string]*section)}
	for i, path := range paths {
		w.parse(path, contents[i])
	}
	return w
}

// readFile reads a file of the configuration.
func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxConfigFile+1))
	if err == nil && len(data) > maxConfigFile {
		err = fmt.Errorf("%s is over %d bytes", path, maxConfigFile)
	}
	return data, err
}

func (w *written) parse(path string, data []byte) {
	d := yaml.NewDecoder(bytes.NewReader(data))
	var document, second yaml.Node
	err := d.Decode(&document)
	switch {
	case errors.Is(err, io.EOF):
		w.problems.add(position{file: path}, "the file is empty: tunnel-client config init shows what belongs there")
		return
	case err == nil && !errors.Is(d.Decode(&second), io.EOF):
		w.problems.add(position{path, second.Line}, "a second document begins, or something that is not YAML: a file is one document")
		return
	case err != nil:
		at, text := yamlError(path, data, err)
		w.problems.add(at, "invalid YAML: %s", text)
		return
	}
	versioned := document.Content[0].Kind != yaml.MappingNode // what it is instead is said below
	w.each(path, document.Content[0], "the file", func(key string, value *yaml.Node) {
		switch key {
		case "version":
			versioned = true
			if value.Value != configVersion {
				w.problems.add(position{path, value.Line}, "version %q is unknown: this tunnel-client reads version: %s", value.Value, configVersion)
			}
		case "endpoints":
			w.each(path, value, "endpoints", func(name string, value *yaml.Node) { w.endpoint(path, name, value) })
		default:
			w.top.settings[key] = w.value(path, "", key, value)
		}
	})
	if !versioned {
		w.problems.add(position{path, 1}, "version is missing: write version: %s", configVersion)
	}
}

// definedTwice says that a key is there twice in what.
func definedTwice(key, what string) string {
	if what == "endpoints" {
		return "endpoint " + key + " is defined twice"
	}
	return key + " is defined twice in " + what
}

// yamlError makes "yaml: line 3: TEXT" a position and TEXT. A tab in the indentation of data is told
// as such, where it is: package yaml speaks of a character that cannot start a token.
func yamlError(path string, data []byte, err error) (position, string) {
	text := strings.TrimPrefix(err.Error(), "yaml: ")
	if strings.Contains(text, "cannot start any token") || strings.Contains(text, "tab character") {
		if n := tabbed(data); n > 0 {
			return position{path, n}, "it is indented with a tab: YAML is indented with spaces"
		}
	}
	if rest, ok := strings.CutPrefix(text, "line "); ok {
		if line, after, ok := strings.Cut(rest, ": "); ok {
			if n, err := strconv.Atoi(line); err == nil {
				return position{path, n}, after
			}
		}
	}
	return position{file: path}, text
}

// tabbed is the first line of data that is indented with a tab, or 0.
func tabbed(data []byte) int {
	n := 0
	for line := range bytes.Lines(data) {
		n++
		if indent, _, _ := bytes.Cut(line, bytes.TrimLeft(line, " \t")); bytes.Contains(indent, []byte("\t")) {
			return n
		}
	}
	return 0
}

func (w *written) endpoint(path, name string, value *yaml.Node) {
	at := position{path, value.Line}
	if value.Kind != yaml.MappingNode {
		w.problems.add(at, "endpoint %s must be keys with values, such as target: 3000", name)
		return
	}
	s := w.endpoints[name]
	if s == nil {
		s = &section{settings: make(map[string]setting)}
		w.endpoints[name] = s
		w.order = append(w.order, name)
	}
	s.at = at
	w.each(path, value, "endpoint "+name, func(key string, value *yaml.Node) {
		s.settings[key] = w.value(path, name, key, value)
	})
}

// each calls f for the keys of n, which is what.
func (w *written) each(path string, n *yaml.Node, what string, f func(key string, value *yaml.Node)) {
	n = meant(n)
	if n.Kind != yaml.MappingNode {
		w.problems.add(position{path, n.Line}, "%s must be keys with values, such as target: 3000", what)
		return
	}
	seen := make(map[string]bool)
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], meant(n.Content[i+1])
		switch {
		case key.Kind != yaml.ScalarNode:
			w.problems.add(position{path, key.Line}, "a key of %s is no text", what)
		case seen[key.Value]:
			w.problems.add(position{path, key.Line}, "%s", definedTwice(key.Value, what))
		default:
			seen[key.Value] = true
			at := *value
			at.Line = key.Line // where the user looks for it
			f(key.Value, &at)
		}
	}
}

// meant is the node that an alias leads to.
func meant(n *yaml.Node) *yaml.Node {
	if n.Kind == yaml.AliasNode {
		return n.Alias
	}
	return n
}

// value is that of a key of an endpoint, or of the top.
func (w *written) value(path, endpoint, key string, n *yaml.Node) setting {
	s := setting{at: position{path, n.Line}, endpoint: endpoint, list: n.Kind == yaml.SequenceNode, truth: n.ShortTag() == "!!bool"}
	values := []*yaml.Node{n}
	if s.list {
		values = n.Content
	}
	for _, value := range values {
		value = meant(value)
		at := position{path, value.Line}
		switch {
		case value.Kind != yaml.ScalarNode:
			w.problems.add(at, "%s must have a value, and here are keys or lists", s.called(key))
			return setting{at: s.at, broken: true}
		case value.ShortTag() == "!!null":
			w.problems.add(at, "%s has no value: write one, or leave the key out", s.called(key))
			return setting{at: s.at, broken: true}
		}
		text, err := expand(value.Value)
		if err != nil {
			w.problems.add(at, "%s: %w", s.called(key), err)
			return setting{at: s.at, broken: true}
		}
		s.values = append(s.values, text)
	}
	return s
}

// expand fills in the variables of the environment: ${NAME}, and ${NAME:-DEFAULT} for
// one that is unset or empty. $${ is the two characters.
func expand(s string) (string, error) {
	var b strings.Builder
	for {
		before, rest, found := strings.Cut(s, "${")
		if !found {
			b.WriteString(s)
			return b.String(), nil
		}
		if literal, ok := strings.CutSuffix(before, "$"); ok {
			b.WriteString(literal + "${")
			s = rest
			continue
		}
		inner, after, closed := strings.Cut(rest, "}")
		name, otherwise, has := strings.Cut(inner, ":-")
		if !closed || !isVariable(name) {
			return "", errors.New("${ begins a variable, such as ${NAME} or ${NAME:-default}: write $${ for the two characters")
		}
		value, set := os.LookupEnv(name)
		switch {
		case value == "" && has:
			value = otherwise
		case !set:
			return "", fmt.Errorf("the environment has no %s: set it, or write ${%[1]s:-default}", name)
		}
		b.WriteString(before + value)
		s = after
	}
}

func isVariable(name string) bool {
	for i, c := range []byte(name) {
		letter := c == '_' || c >= 'A' && c <= 'Z' || c >= 'a' && c <= 'z'
		if !letter && (i == 0 || c < '0' || c > '9') {
			return false
		}
	}
	return name != ""
}
