package broker

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"io/fs"
	"slices"
	"time"
)

// Secret is an earlier password of a user: until its end it opens new connections, if it has not expired by itself, and
// keeps those that it has opened.
type Secret struct {
	SHA256  string    `json:"sha256"`
	Expires time.Time `json:"expires,omitzero"`
	Until   time.Time `json:"until"`
}

// WriteAccessOver stores access like [WriteAccess]. A user's password that was good before and is another now stays good
// for grace, so that its owner has time to take the new one, and none before it for longer; one whose time is over is left
// out.
func WriteAccessOver(dir string, access Access, now time.Time, grace time.Duration) error {
	before, _, err := readAccess(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		before = Access{} // a damaged file: nobody got in by it anyway
	}
	access.Users = slices.Clone(access.Users)
	for i := range access.Users {
		user := &access.Users[i]
		at := slices.IndexFunc(before.Users, func(u User) bool { return u.Name == user.Name })
		if at < 0 {
			continue
		}
		old := before.Users[at]
		user.Earlier = slices.DeleteFunc(slices.Clone(old.Earlier), func(s Secret) bool {
			return s.SHA256 == user.PasswordSHA256 || !now.Before(s.Until)
		})
		if old.PasswordSHA256 != user.PasswordSHA256 {
			for j := range user.Earlier {
				if until := now.Add(grace); user.Earlier[j].Until.After(until) {
					user.Earlier[j].Until = until
				}
			}
			user.Earlier = append(user.Earlier, Secret{old.PasswordSHA256, old.Expires, now.Add(grace)})
		}
	}
	return WriteAccess(dir, access)
}

// digest is a password as it is compared.
type digest [sha256.Size]byte

// keys are the passwords of one user.
type keys struct {
	current digest
	expires time.Time
	earlier []key
}

type key struct {
	sum            digest
	expires, until time.Time
}

// keysOf reads the passwords of u; ok is false for an entry that nobody can match.
func keysOf(u User) (k keys, ok bool) {
	k.expires = u.Expires
	if k.current, ok = digestOf(u.PasswordSHA256); !ok {
		return keys{}, false
	}
	for _, s := range u.Earlier {
		if sum, ok := digestOf(s.SHA256); ok {
			k.earlier = append(k.earlier, key{sum, s.Expires, s.Until})
		}
	}
	return k, true
}

func digestOf(text string) (d digest, ok bool) {
	sum, err := hex.DecodeString(text)
	if err != nil || len(sum) != len(d) {
		return d, false
	}
	return digest(sum), true
}

// opens reports whether a password makes a new connection.
func (k keys) opens(sum digest, now time.Time) bool {
	good := func(expires time.Time) bool { return expires.IsZero() || now.Before(expires) }
	// Every password is compared, so that the time taken does not tell which one was close.
	found := equal(k.current, sum) && good(k.expires)
	for _, old := range k.earlier {
		found = equal(old.sum, sum) && good(old.expires) && now.Before(old.until) || found
	}
	return found
}

// keeps reports whether a connection that was made, or renewed, with a password may go on. The current password keeps
// its connections even when it has expired: nothing that flows stops because the node is away and cannot replace it.
func (k keys) keeps(sum digest, now time.Time) bool {
	if equal(k.current, sum) {
		return true
	}
	return slices.ContainsFunc(k.earlier, func(old key) bool { return equal(old.sum, sum) && now.Before(old.until) })
}

func equal(a, b digest) bool { return subtle.ConstantTimeCompare(a[:], b[:]) == 1 }
