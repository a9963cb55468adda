package main

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/revtun/tunnel/internal/inspect"
)

const requestsDescription = `Shows what the inspector of a running tunnel-client http, file or start has recorded, the newest last:

  tunnel-client requests --status 5xx
  tunnel-client requests 17                one request with its answer

Headers that carry secrets are masked without --secrets.`

const replayDescription = `ID is that of tunnel-client requests. The app gets the request once more, as it was or edited,
and its answer's body goes to standard output:

  tunnel-client replay 17
  tunnel-client replay 17 --body @event.json --header 'X-Try: 2'

The exit code is 0 when the app has answered, whatever it says.`

// requestsFlags are those of requests.
func requestsFlags() []cli.Flag {
	return []cli.Flag{
		inspectFlag("`ADDRESS` of the inspector, which tunnel-client http prints"),
		&cli.StringFlag{Name: "endpoint", Usage: "only those of the endpoint `NAME` of start"},
		&cli.StringFlag{Name: "method", Usage: "only those of `METHOD`"},
		&cli.StringFlag{Name: "path", Usage: "only those with `PART` in path or query"},
		&cli.StringFlag{Name: "status", Usage: "only those with `STATUS`: 404, 5xx, or error, without a whole answer of the app"},
		&cli.StringFlag{Name: "text", Usage: "only those with `TEXT` in a header, a body or a message"},
		&cli.IntFlag{Name: "limit", Value: 20, Usage: "the newest `N`; 0: all"},
		&cli.BoolFlag{Name: "json", Usage: "print what the API says, see docs/inspector.md"},
		&cli.BoolFlag{Name: "har", Usage: "print them as HAR 1.2, which browsers read"},
		&cli.BoolFlag{Name: "secrets", Usage: "show headers that carry secrets"},
		&cli.BoolFlag{Name: "clear", Usage: "forget all requests"},
	}
}

// replayFlags are those of replay.
func replayFlags() []cli.Flag {
	return []cli.Flag{
		inspectFlag("`ADDRESS` of the inspector, which tunnel-client http prints"),
		&cli.StringFlag{Name: "method", Usage: "`METHOD` in place of the request's"},
		&cli.StringFlag{Name: "path", Usage: "`PATH` with its query, in place of the request's"},
		&cli.GenericFlag{Name: "header", Value: new(headerList), Usage: "`'NAME: VALUE'` in place of the request's, 'NAME:' for none; may be repeated"},
		&cli.StringFlag{Name: "body", Usage: "`BODY` in place of the request's: a text, @FILE, or @- for standard input"},
		&cli.BoolFlag{Name: "json", Usage: "print the request and its answer as the API says, see docs/inspector.md"},
		&cli.BoolFlag{Name: "secrets", Usage: "with --json, show headers that carry secrets"},
	}
}

// headerList is a flag that may be repeated, with commas in its values.
type headerList []inspect.Field

// Set takes one.
func (l *headerList) Set(s string) error {
	name, value, ok := strings.Cut(s, ":")
	if !ok || strings.TrimSpace(name) == "" {
		return fmt.Errorf("%q is not NAME: VALUE", s)
	}
	*l = append(*l, inspect.Field{Name: http.CanonicalHeaderKey(strings.TrimSpace(name)), Value: strings.TrimSpace(value)})
	return nil
}

func (l *headerList) String() string { return "" }

func (p process) requestsCommand() *cli.Command {
	return p.inspectCommand("requests", "show the requests that were recorded", "tunnel-client requests [options] [ID]", requestsDescription,
		func(c *cli.Context, api *inspectAPI) error {
			switch id := c.Args().First(); {
			case c.Bool("clear"):
				return api.call(http.MethodDelete, "requests", nil, nil)
			case c.Args().Len() > 1:
				return usageError{errors.New("requests takes one ID at most")}
			case id != "":
				return p.printRequest(c, api, id)
			}
			return p.printRequests(c, api)
		})
}

func (p process) replayCommand() *cli.Command {
	return p.inspectCommand("replay", "send a recorded request to the local app once more", "tunnel-client replay [options] ID", replayDescription,
		func(c *cli.Context, api *inspectAPI) error {
			if c.Args().Len() != 1 {
				return usageError{errors.New("replay needs the ID of a request: tunnel-client requests shows them")}
			}
			return p.replay(c, api, c.Args().First())
		})
}

// inspectCommand is a command that asks a running inspector.
func (p process) inspectCommand(name, usage, usageText, description string, run func(*cli.Context, *inspectAPI) error) *cli.Command {
	return &cli.Command{
		Name: name, Usage: usage, UsageText: usageText, Description: description,
		Flags: flagsOf(name), HideHelpCommand: true, OnUsageError: onUsageError,
		Action: func(c *cli.Context) error {
			addr, err := inspectAddr(text(c, "inspect"))
			if err != nil {
				return usageError{err}
			}
			api := &inspectAPI{base: "http://" + addr + "/api/", client: &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}}
			err = run(c, api)
			var usage usageError
			if err == nil || errors.As(err, &usage) {
				return err
			}
			fmt.Fprintln(p.stderr, "tunnel-client:", printable(err.Error()))
			return exitRuntime
		},
	}
}

// inspectAPI is the inspector of another process.
type inspectAPI struct {
	base   string
	client *http.Client
	token  string
}

// call sends in, if not nil, and reads the answer into out, which may be an io.Writer
// or nil.
func (a *inspectAPI) call(method, path string, in, out any) error {
	if a.token == "" && path != "session" {
		var session struct{ Token string }
		if err := a.call(http.MethodGet, "session", nil, &session); err != nil {
			return err
		}
		a.token = session.Token
	}
	body, err := json.Marshal(in)
	if err != nil {
		return err
	}
	req, err := http.NewRequest(method, a.base+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set(inspect.HeaderToken, a.token)
	res, err := a.client.Do(req)
	if err != nil {
		return fmt.Errorf("no inspector answers there: is tunnel-client http running, and is this its --inspect address? %w", err)
	}
	defer res.Body.Close()
	if res.StatusCode/100 != 2 {
		var failure struct{ Error string }
		if json.NewDecoder(res.Body).Decode(&failure) != nil || failure.Error == "" {
			return fmt.Errorf("what answers there is no inspector (%s): give its --inspect address", res.Status)
		}
		return errors.New(failure.Error)
	}
	switch out := out.(type) {
	case nil:
		return nil
	case io.Writer:
		_, err = io.Copy(out, res.Body)
	default:
		err = json.NewDecoder(res.Body).Decode(out)
	}
	return err
}

func reveal(c *cli.Context) string { return "reveal=" + strconv.FormatBool(c.Bool("secrets")) }

func (p process) printRequests(c *cli.Context, api *inspectAPI) error {
	q := url.Values{}
	for _, name := range []string{"endpoint", "method", "path", "status", "text"} {
		if v := c.String(name); v != "" {
			q.Set(name, v)
		}
	}
	q.Set("limit", strconv.Itoa(c.Int("limit")))
	switch {
	case c.Bool("har"):
		return api.call(http.MethodGet, "har?"+q.Encode()+"&"+reveal(c), nil, p.stdout)
	case c.Bool("json"):
		return api.call(http.MethodGet, "requests?"+q.Encode(), nil, p.stdout)
	}
	var all inspect.Requests
	if err := api.call(http.MethodGet, "requests?"+q.Encode(), nil, &all); err != nil {
		return err
	}
	for i, r := range all.Requests {
		if r.ReplayOf != 0 {
			all.Requests[i].Path += fmt.Sprintf(" (replay of %d)", r.ReplayOf)
		}
	}
	w := tabwriter.NewWriter(p.stdout, 0, 0, 2, ' ', 0)
	column := func(endpoint string) string {
		if len(all.Endpoints) < 2 {
			return ""
		}
		return endpoint + "\t"
	}
	fmt.Fprintln(w, "ID\tAT\t"+column("ENDPOINT")+"METHOD\tSTATUS\tBYTES\tTIME\tPATH")
	for _, r := range all.Requests {
		fmt.Fprintf(w, "%d\t%s\t%s%s\t%s\t%d\t%s\t%s\n", r.ID, r.Started.Local().Format(time.TimeOnly), column(printable(r.Endpoint)), printable(r.Method),
			stateOf(r), r.ResponseBytes, short(time.Duration(r.Milliseconds*float64(time.Millisecond))), printable(r.Path))
	}
	return w.Flush()
}

func stateOf(r inspect.Summary) string {
	switch {
	case r.State == "cut":
		return "cut off"
	case r.Status == 0:
		return "open"
	case r.Error != "":
		return fmt.Sprintf("%d %s", r.Status, printable(r.Error))
	}
	return strconv.Itoa(r.Status)
}

func (p process) printRequest(c *cli.Context, api *inspectAPI, id string) error {
	path := "requests/" + url.PathEscape(id) + "?" + reveal(c)
	if c.Bool("json") {
		return api.call(http.MethodGet, path, nil, p.stdout)
	}
	var r inspect.Request
	if err := api.call(http.MethodGet, path, nil, &r); err != nil {
		return err
	}
	w := p.stdout
	fmt.Fprintf(w, "%s %s\n", printable(r.Method), printable(r.URL))
	if r.Endpoint != "" {
		fmt.Fprintf(w, "of endpoint %s\n", printable(r.Endpoint))
	}
	p.printPart(r.Request)
	fmt.Fprintf(w, "\n%s %s, in the app %s\n", stateOf(r.Summary), http.StatusText(r.Status), short(time.Duration(r.Timing.App*float64(time.Millisecond))))
	p.printPart(r.Response)
	for _, m := range r.Messages {
		fmt.Fprintf(w, "%s %-7s %s %s\n", m.At.Local().Format(time.TimeOnly), m.From, m.Kind, printable(m.Text+m.Base64+m.Error))
	}
	return nil
}

func (p process) printPart(part inspect.Part) {
	for _, f := range part.Headers {
		fmt.Fprintf(p.stdout, "%s: %s\n", printable(f.Name), printable(f.Value))
	}
	b := part.Body
	if b.Size == 0 {
		return
	}
	fmt.Fprintln(p.stdout)
	for line := range strings.Lines(b.Text) {
		fmt.Fprintln(p.stdout, printable(strings.ReplaceAll(strings.TrimRight(line, "\r\n"), "\t", "    ")))
	}
	switch {
	case b.Base64 != "":
		fmt.Fprintf(p.stdout, "(%d bytes that are no text)\n", b.Size)
	case b.Cut:
		fmt.Fprintf(p.stdout, "(the beginning of %d bytes)\n", b.Size)
	}
}

func (p process) replay(c *cli.Context, api *inspectAPI, id string) error {
	edit, err := newEdit(c, api, id)
	if err != nil {
		return err
	}
	var replayed inspect.Replayed
	if err := api.call(http.MethodPost, "requests/"+url.PathEscape(id)+"/replay", edit, &replayed); err != nil {
		return err
	}
	path := fmt.Sprintf("requests/%d?%s", replayed.ID, reveal(c))
	if c.Bool("json") {
		return api.call(http.MethodGet, path, nil, p.stdout)
	}
	var r inspect.Request
	if err := api.call(http.MethodGet, path, nil, &r); err != nil {
		return err
	}
	fmt.Fprintf(p.stderr, "request %d: %s %s in %s\n", r.ID, stateOf(r.Summary), http.StatusText(r.Status), short(time.Duration(r.Milliseconds*float64(time.Millisecond))))
	body := []byte(r.Response.Body.Text)
	if r.Response.Body.Base64 != "" {
		if body, err = base64.StdEncoding.DecodeString(r.Response.Body.Base64); err != nil {
			return err
		}
	}
	if isTerminal(p.stdout) {
		p.printPart(inspect.Part{Body: r.Response.Body}) // a terminal would obey it (S22)
	} else if _, err := p.stdout.Write(body); err != nil {
		return err
	}
	if r.State == "cut" {
		return errors.New("the answer was cut off")
	}
	return nil
}

// newEdit is what the flags say.
func newEdit(c *cli.Context, api *inspectAPI, id string) (edit inspect.Edit, err error) {
	if c.IsSet("method") {
		method := c.String("method")
		edit.Method = &method
	}
	if c.IsSet("path") {
		path := c.String("path")
		edit.URL = &path
	}
	if c.IsSet("body") {
		content, err := bodyOf(c.String("body"))
		if err != nil {
			return edit, usageError{fmt.Errorf("--body: %w", err)}
		}
		encoded := base64.StdEncoding.EncodeToString(content)
		edit.Base64 = &encoded
	}
	changes, _ := c.Generic("header").(*headerList)
	if changes == nil || len(*changes) == 0 {
		return edit, nil
	}
	var r inspect.Request
	if err := api.call(http.MethodGet, "requests/"+url.PathEscape(id), nil, &r); err != nil {
		return edit, err
	}
	edit.Headers = changed(append(r.Request.Headers, inspect.Field{Name: "Host", Value: r.Host}), *changes)
	return edit, nil
}

// changed is fields with those of changes in place of what had their names.
func changed(fields, changes []inspect.Field) []inspect.Field {
	named := make(map[string]bool)
	for _, f := range changes {
		named[f.Name] = true
	}
	var all []inspect.Field
	for _, f := range fields {
		if !named[f.Name] {
			all = append(all, inspect.Field{Name: f.Name, Value: f.Value})
		}
	}
	for _, f := range changes {
		if f.Value != "" {
			all = append(all, f)
		}
	}
	return all
}

func bodyOf(s string) ([]byte, error) {
	switch file, ok := strings.CutPrefix(s, "@"); {
	case !ok:
		return []byte(s), nil
	case file == "-":
		return io.ReadAll(os.Stdin)
	default:
		return os.ReadFile(file)
	}
}
