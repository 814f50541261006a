package web

import (
	"net/http"
	"strings"

	"github.com/hozo-dev/hozo/fault"
)

// readiness is the JSON of /readyz.
type readiness struct {
	Ready bool     `json:"ready"`
	Error *problem `json:"error,omitempty"`
}

// withHealth adds /healthz and /readyz to next, unless next is a mux that has patterns of its own for them.
func (s *Server) withHealth(next http.Handler) http.Handler {
	pages := map[string]http.HandlerFunc{"/healthz": s.serveAlive, "/readyz": s.serveReady}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		page, ok := pages[r.URL.Path]
		if ok && (r.Method == http.MethodGet || r.Method == http.MethodHead) && !hasOwn(next, r) {
			w.Header().Set("Cache-Control", "no-store")
			page(w, r)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// hasOwn reports whether h is a mux with a pattern for exactly this path; a catch-all is none.
func hasOwn(h http.Handler, r *http.Request) bool {
	mux, ok := h.(interface {
		Handler(*http.Request) (http.Handler, string)
	})
	if !ok {
		return false
	}
	_, pattern := mux.Handler(r)
	return strings.HasSuffix(pattern, r.URL.Path)
}

func (s *Server) serveAlive(w http.ResponseWriter, _ *http.Request) {
	JSON(w, http.StatusOK, map[string]bool{"alive": true})
}

func (s *Server) serveReady(w http.ResponseWriter, _ *http.Request) {
	if err := s.notReady(); err != nil {
		p := problemOf(http.StatusServiceUnavailable, err)
		JSON(w, http.StatusServiceUnavailable, readiness{Error: &p})
		return
	}
	JSON(w, http.StatusOK, readiness{Ready: true})
}

func (s *Server) notReady() error {
	select {
	case <-s.draining:
		return &fault.Error{Code: "web/draining", What: "the service is stopping", Fix: "ask another instance"}
	default:
		return s.cfg.Ready()
	}
}
