//go:build linux

package supervisord

import (
	"context"
	"errors"
	"io"
	stdlog "log"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/hozo-dev/hozo/internal/supervisord/conf"
	"github.com/hozo-dev/hozo/internal/supervisord/xmlrpc"
)

const (
	// maxBodyBytes bounds a request. The largest in the field carries text for a standard input.
	maxBodyBytes = 16 << 20
	// headerTime is how long a client may take to send the head of a request.
	headerTime = 30 * time.Second
	// lastWords is how long answers that are being written are awaited at the end.
	lastWords = 2 * time.Second
)

// servers are the HTTP servers of a daemon.
type servers struct {
	list      []*server
	cancel    context.CancelFunc // ends whoever follows a log
	followers *sync.WaitGroup    // which the HTTP server does not wait for
}

type server struct {
	http     *http.Server
	listener net.Listener
	file     string // of a unix socket
}

// openServers listens; serve answers.
func (d *Daemon) openServers(ctx context.Context) (*servers, error) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx)) // ends with the daemon, after its last answer
	all := &servers{cancel: cancel, followers: &d.followers}
	add := func(l net.Listener, err error, section, file string, auth conf.Auth) error {
		if err != nil {
			all.close(ctx)
			all.remove()
			return err
		}
		d.log.info("RPC interface 'supervisor' initialized")
		if !auth.Required {
			d.log.critical("Server %s running without any HTTP authentication checking", quote(section))
		}
		all.list = append(all.list, &server{listener: l, file: file, http: &http.Server{
			Handler:           withAuth(auth, d.handler()),
			ReadHeaderTimeout: headerTime,
			ErrorLog:          stdlog.New(io.Discard, "", 0), // clients that break off are no news
			BaseContext:       func(net.Listener) context.Context { return ctx },
		}})
		return nil
	}
	for _, s := range d.conf.InetServers {
		if !s.Auth.Required && !loopback(s.Host) {
			d.log.warn("Server %s can be reached from other machines, and whoever reaches it controls every process: "+
				"set username and password, or listen on 127.0.0.1", quote(s.Section))
		}
		l, err := listenInet(ctx, s)
		if err := add(l, err, s.Section, "", s.Auth); err != nil {
			return nil, err
		}
	}
	for _, s := range d.conf.UnixServers {
		l, err := listenUnix(ctx, s)
		if err := add(l, err, s.Section, s.File, s.Auth); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// serve answers until close.
func (all *servers) serve(wg *sync.WaitGroup) {
	for _, s := range all.list {
		wg.Go(func() { _ = s.http.Serve(s.listener) }) // ends with close, or with its socket
	}
}

// close waits a moment for answers that are being written.
func (all *servers) close(ctx context.Context) {
	all.cancel()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastWords)
	defer cancel()
	var wg sync.WaitGroup
	for _, s := range all.list {
		wg.Go(func() {
			_ = s.listener.Close() // Serve may not have begun
			if err := s.http.Shutdown(ctx); err != nil {
				_ = s.http.Close() // whoever still talks is cut off
			}
		})
	}
	wg.Wait()
	all.followers.Wait()
}

// remove takes the unix sockets away.
func (all *servers) remove() {
	for _, s := range all.list {
		if s.file != "" {
			os.Remove(s.file)
		}
	}
}

// handler is everything that a server answers.
func (d *Daemon) handler() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ContentLength > maxBodyBytes {
			httpError(w, http.StatusRequestEntityTooLarge)
			return
		}
		r.Body = http.MaxBytesReader(w, r.Body, maxBodyBytes)
		switch path := r.URL.Path; {
		case strings.HasPrefix(path, "/RPC2"):
			d.serveRPC(w, r)
		case strings.HasPrefix(path, "/logtail"):
			d.serveLogtail(w, r)
		case strings.HasPrefix(path, "/mainlogtail"):
			d.serveMainLogtail(w, r)
		case path == "/" || path == "/index.html" || path == "":
			d.serveStatus(w, r)
		case path == "/tail.html":
			d.serveTail(w, r)
		default:
			httpError(w, http.StatusNotFound)
		}
	})
}

// serveRPC answers one XML-RPC call, when its answer is there.
func (d *Daemon) serveRPC(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodPost {
		httpError(w, http.StatusBadRequest)
		return
	}
	if http.NewCrossOriginProtection().Check(r) != nil {
		httpError(w, http.StatusForbidden) // a page of somebody else's, in the browser of somebody who may
		return
	}
	call, err := xmlrpc.Decode(r.Body)
	if err != nil || call.Method == "" {
		if err == nil {
			err = errors.New("no method name")
		}
		d.log.error("XML-RPC request data is invalid: %v", err)
		httpError(w, http.StatusBadRequest)
		return
	}
	d.log.trace("XML-RPC method called: %s()", call.Method)
	res, err := d.ask(r.Context(), func() result { return rpc{d}.call(call.Method, call.Params) })
	if err != nil {
		panic(http.ErrAbortHandler) // the client has gone, or the daemon goes
	}
	var body []byte
	if res.fault != nil {
		d.log.trace("XML-RPC method %s() returned fault: [%d] %s", call.Method, res.fault.Code, res.fault.String)
		body, err = xmlrpc.FaultResponse(res.fault)
	} else {
		d.log.trace("XML-RPC method %s() returned successfully", call.Method)
		body, err = xmlrpc.Response(res.value)
	}
	if err != nil {
		d.log.critical("answer to XML-RPC method %s() not written: %v", call.Method, err)
		httpError(w, http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/xml")
	_, _ = w.Write(body) // the client has gone, or the daemon goes
}
