package keeper

// ShimCommand is the first argument of the keeper's binary when it is to run ExecShim with the arguments after it.
const ShimCommand = "keeper-exec"

// shimPlan is what a child has to do between fork and exec that only it can: as JSON, the argument before the program.
type shimPlan struct {
	Report  int    `json:"report"`  // descriptor that takes a shimReport, and ends with a successful exec
	Program string `json:"program"` // path; argv[0] may be another

	Limits Limits `json:"limits,omitzero"` // of them the program's own settings
	Dir    string `json:"dir,omitempty"`

	// The user, when it is another one than the keeper's. It is changed last but the folder: raising a limit needs rights.
	User   bool     `json:"user,omitempty"`
	UID    uint32   `json:"uid,omitempty"`
	GID    uint32   `json:"gid,omitempty"`
	Groups []uint32 `json:"groups,omitempty"`
}

// shimReport is what a child could not do: as JSON, before its exec or its end.
type shimReport struct {
	Unmet []Unmet `json:"unmet,omitempty"`
	Errno uintptr `json:"errno,omitempty"` // not 0: the program does not run, and why
	Dir   bool    `json:"dir,omitempty"`   // Errno is of the folder
}
