//go:build linux

package supervisord

import (
	"crypto/sha1"
	"crypto/subtle"
	"encoding/hex"
	"net/http"
	"strings"

	"github.com/hozo-dev/hozo/internal/supervisord/conf"
)

// withAuth asks clients for the username and password of a server, if it has them.
func withAuth(auth conf.Auth, next http.Handler) http.Handler {
	if !auth.Required {
		return next
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if username, password, ok := r.BasicAuth(); ok && authorized(auth, username, password) {
			next.ServeHTTP(w, r)
			return
		}
		w.Header().Set("Connection", "close")
		w.Header().Set("WWW-Authenticate", `Basic realm="default"`)
		httpError(w, http.StatusUnauthorized)
	})
}

// authorized compares in a time that does not tell how much of a guess was right. The password may be kept as its SHA-1,
// which is Supervisor's format.
func authorized(auth conf.Auth, username, password string) bool {
	want := auth.Password
	if hash, ok := strings.CutPrefix(want, "{SHA}"); ok {
		sum := sha1.Sum([]byte(password))
		want, password = hash, hex.EncodeToString(sum[:])
	}
	name := subtle.ConstantTimeCompare([]byte(auth.Username), []byte(username))
	pass := subtle.ConstantTimeCompare([]byte(want), []byte(password))
	return name&pass == 1
}

// httpError answers with a status alone.
func httpError(w http.ResponseWriter, status int) { http.Error(w, http.StatusText(status), status) }
