package web

import (
	"encoding/json"
	"net/http"
	"strings"

	"github.com/hozo-dev/hozo/fault"
)

// problem is the JSON of a fault.
type problem struct {
	Code  string `json:"code"`
	What  string `json:"what"`
	Where string `json:"where,omitempty"`
	Fix   string `json:"fix,omitempty"`
}

// JSON answers with status and v as JSON. A value that cannot be encoded is answered with status 500.
func JSON(w http.ResponseWriter, status int, v any) {
	body, err := json.Marshal(v)
	if err != nil {
		Fault(w, http.StatusInternalServerError, &fault.Error{Code: "web/encode", What: "the answer cannot be encoded", Err: err})
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	_, _ = w.Write(append(body, '\n')) // the client is gone: nobody is left to tell
}

// Fault answers with status and err as {"error":{"code","what","where","fix"}}. An err without a fault.Error in it has
// its text as what and a code made from the status ("http/not-found"). The text goes to the client: do not pass an
// error that holds a secret.
func Fault(w http.ResponseWriter, status int, err error) {
	// Headers that described the answer which is not given.
	for _, name := range []string{"Content-Length", "Content-Encoding", "Etag", "Last-Modified", "Cache-Control"} {
		w.Header().Del(name)
	}
	JSON(w, status, map[string]problem{"error": problemOf(status, err)})
}

func problemOf(status int, err error) problem {
	p := problem{Code: "http/" + strings.ReplaceAll(strings.ToLower(http.StatusText(status)), " ", "-")}
	f, ok := fault.As(err)
	if !ok {
		if err != nil {
			p.What = err.Error()
		}
		return p
	}
	if f.Code != "" {
		p.Code = f.Code
	}
	p.What, p.Where, p.Fix = f.What, f.Where, f.Fix
	if f.Err != nil {
		p.What += ": " + f.Err.Error()
	}
	return p
}
