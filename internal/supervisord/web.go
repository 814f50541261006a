//go:build linux

package supervisord

import (
	"cmp"
	"context"
	_ "embed"
	"fmt"
	"html/template"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/hozo-dev/hozo/internal/supervisord/xmlrpc"
)

//go:embed web.html
var webPage string

// tailLimit is how much of a log the page of a process shows unless it is asked for more.
const tailLimit = 1024

// statusPage is what the page shows.
type statusPage struct {
	Identifier, Version, Message string
	Rows                         []statusRow
	Tail                         *tailPage // instead of the rows
}

type statusRow struct {
	Name, State, Class, Description string
	CanStart, CanStop               bool
}

type tailPage struct {
	Name, Text string
	Limit      int
}

// serveStatus shows all processes, after doing what action asks for.
func (d *Daemon) serveStatus(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	action := q.Get("action")
	if action == "" {
		page := statusPage{Message: q.Get("message")}
		if _, err := d.ask(r.Context(), func() result { page.Rows = d.rows(); return value(nil) }); err != nil {
			panic(http.ErrAbortHandler) // the client has gone, or the daemon goes
		}
		d.render(w, page)
		return
	}
	if site := r.Header.Get("Sec-Fetch-Site"); site != "" && site != "same-origin" && site != "none" {
		httpError(w, http.StatusForbidden) // a link on a page of somebody else's
		return
	}
	message, ok := d.act(r.Context(), action, q.Get("processname"))
	if !ok {
		httpError(w, http.StatusBadRequest)
		return
	}
	w.Header().Set("Location", "?message="+url.QueryEscape(message)) // relative, for whoever is behind a proxy
	w.WriteHeader(http.StatusSeeOther)
}

// act does what a link of the page stands for; the message says how it went.
func (d *Daemon) act(ctx context.Context, action, name string) (message string, ok bool) {
	now := time.Now().Format("Mon Jan _2 15:04:05 2006")
	call := func(name string, a ...any) map[string]any {
		return map[string]any{"methodName": "supervisor." + name, "params": a}
	}
	run := func(method string, a ...any) *xmlrpc.Fault {
		res, err := d.ask(ctx, func() result { return rpc{d}.call(method, a) })
		if err != nil {
			panic(http.ErrAbortHandler) // the client has gone, or the daemon goes
		}
		return res.fault
	}
	switch action {
	case "refresh":
		return "Page refreshed at " + now, true
	case "stopall":
		_ = run("supervisor.stopAllProcesses") // how it went shows in the rows
		return "All stopped at " + now, true
	case "restartall":
		_ = run("system.multicall", []any{call("stopAllProcesses"), call("startAllProcesses")}) // likewise
		return "All restarted at " + now, true
	}
	if name == "" {
		return "", false
	}
	if fault := run("supervisor.getProcessInfo", name); fault != nil {
		return "No such process named " + name, true
	}
	switch action {
	case "start":
		if fault := run("supervisor.startProcess", name); fault != nil {
			return fmt.Sprintf("ERROR: Process %s: %s", name, webFault(fault)), true
		}
		return fmt.Sprintf("Process %s started", name), true
	case "stop":
		if fault := run("supervisor.stopProcess", name); fault != nil {
			return webFault(fault), true
		}
		return fmt.Sprintf("Process %s stopped", name), true
	case "restart":
		_ = run("system.multicall", []any{call("stopProcess", name), call("startProcess", name)}) // likewise
		return fmt.Sprintf("Process %s restarted", name), true
	case "clearlog":
		if fault := run("supervisor.clearProcessLogs", name); fault != nil {
			return webFault(fault), true
		}
		return fmt.Sprintf("Log for %s cleared", name), true
	}
	return "", false
}

func webFault(f *xmlrpc.Fault) string {
	switch faultCode(f.Code) {
	case noFile:
		return "no such file"
	case notExecutable:
		return "file not executable"
	case alreadyStarted:
		return "already started"
	case spawnError:
		return "spawn error"
	case abnormalTermination:
		return "abnormal termination"
	default:
		return fmt.Sprintf("unexpected rpc fault [%d] %s", f.Code, f.String)
	}
}

// rows are the processes by name. It runs in the loop.
func (d *Daemon) rows() []statusRow {
	var rows []statusRow
	for _, g := range d.groups {
		for _, p := range g.procs {
			row := statusRow{
				Name: namespec(g.conf.Name, p.conf.Name), State: strings.ToLower(p.state.String()), Class: "still",
				Description: p.description(time.Now()), CanStop: p.state == Running,
				CanStart: p.state == Stopped || p.state == Exited || p.state == Fatal,
			}
			switch p.state {
			case Running:
				row.Class = "good"
			case Fatal, Backoff:
				row.Class = "bad"
			}
			rows = append(rows, row)
		}
	}
	slices.SortFunc(rows, func(a, b statusRow) int { return cmp.Compare(a.Name, b.Name) })
	return rows
}

// serveTail shows the end of a log.
func (d *Daemon) serveTail(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	t := &tailPage{Name: q.Get("processname"), Limit: tailLimit, Text: "No process name found"}
	if n, err := strconv.Atoi(q.Get("limit")); err == nil && n > tailLimit {
		t.Limit = min(n, maxAnswerBytes)
	}
	if t.Name != "" {
		res, err := d.ask(r.Context(), func() result {
			return rpc{d}.call("supervisor.readProcessStdoutLog", args{t.Name, -t.Limit, 0})
		})
		switch {
		case err != nil:
			panic(http.ErrAbortHandler) // the client has gone, or the daemon goes
		case res.fault != nil && faultCode(res.fault.Code) == noFile:
			t.Text = "No file for " + t.Name
		case res.fault != nil:
			t.Text = "ERROR: " + webFault(res.fault)
		default:
			t.Text, _ = res.value.(string)
		}
	}
	d.render(w, statusPage{Tail: t})
}

func (d *Daemon) render(w http.ResponseWriter, page statusPage) {
	page.Identifier, page.Version = d.conf.Supervisord.Identifier, Version
	tmpl, err := template.New("page").Parse(webPage)
	if err != nil {
		panic("supervisord: internal error: web.html: " + err.Error())
	}
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Cache-Control", "no-store")
	h.Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'")
	if err := tmpl.Execute(w, page); err != nil {
		d.log.debug("page not sent: %v", err)
	}
}
