package wire

// Renewal is what an instance sends on hozo.renew.<user> when the file with its grant has a new password: that the
// connection it already has is its own. The broker answers with an empty message, or with HeaderError why not. A
// connection that is not renewed is closed once the old password's grace is over, and its owner connects anew.
type Renewal struct {
	Client   uint64 `json:"client"` // the broker's number of the connection
	Password string `json:"password"`
}

// CredentialSubject is where the platform tells the owner of an inbox that the file with its grant has a new password.
func CredentialSubject(inbox string) string { return inbox + ".credential" }
