package manifest

import (
	"fmt"
	"net/url"
)

// postgresURL is postgres://USER@HOST:PORT/DATABASE without a password: the manifest is in a repository, and in plans.
func postgresURL() shape[string] {
	return scalar(schema{"type": "string", "pattern": `^postgres(ql)?://`}, "bad-url", "a URL like postgres://app@db.example:5432/shop, with the password in PGPASSWORD by env_file", func(s string) (string, error) {
		u, err := url.Parse(s)
		if err != nil || u.Scheme != "postgres" && u.Scheme != "postgresql" || u.Fragment != "" {
			return "", fmt.Errorf("%q is no URL of a PostgreSQL database", withoutPassword(u))
		}
		_, inUser := u.User.Password()
		if inUser || u.Query().Has("password") || u.Query().Has("sslpassword") {
			return "", fmt.Errorf("%q has a password in it, which everybody would see who sees the manifest", withoutPassword(u))
		}
		return s, nil
	})
}

// withoutPassword is what may be shown of a URL; nothing when it cannot be read.
func withoutPassword(u *url.URL) string {
	if u == nil {
		return "postgres://…"
	}
	return (&url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path}).String()
}
