package conf

import "os"

// UnixServer is a [unix_http_server] section.
type UnixServer struct {
	File     string      // absolute
	Mode     os.FileMode // default 0700
	UID, GID int         // -1 leaves the owner or the group as it is
	Auth     Auth
	Section  string
	Position Position
}

// InetServer is an [inet_http_server] section.
type InetServer struct {
	Host     string // lower case; "" is every interface
	Port     int
	Auth     Auth
	Section  string
	Position Position
}

// Auth is what a server asks of its clients. The zero Auth asks nothing.
type Auth struct {
	Username string
	Password string // plain, or {SHA} and the SHA-1 of it in hexadecimal
	Required bool
}

// Supervisorctl is the [supervisorctl] section. The daemon has no use for it; its values are as in the file, expanded.
type Supervisorctl struct {
	ServerURL   string // default http://localhost:9001
	Username    string
	Password    string
	Prompt      string // default supervisor
	HistoryFile string
}
