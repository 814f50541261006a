package resource

// Type is what the value of a key may be.
type Type int

// The types of values.
const (
	Text  Type = iota // any text
	Path              // an absolute path on the host
	Mode              // permissions in octal: "0640"
	Bool              // true or false
	Words             // a list of words, or one word
	Argv              // a command line, run without a shell
	Local             // a file beside the manifest; one that ends in .tmpl is rendered
	Cron              // a cron expression
)

// Key is a word that a kind of resource knows.
type Key struct {
	Name     string
	Type     Type
	Doc      string
	Required bool
}

// Kind is a kind of resource: the key of the manifest by its name holds what the thing is called.
type Kind struct {
	Name string
	Doc  string
	Is   Type // of the kind's own value; Words are joined by blanks
	Keys []Key

	// Some of OneOf must be given, unless the resource is absent; nil: no rule.
	OneOf []string

	make func(Spec) Resource
}

// Key returns the kind's key of that name.
func (k Kind) Key(name string) (Key, bool) {
	for _, key := range k.Keys {
		if key.Name == name {
			return key, true
		}
	}
	return Key{}, false
}

// Kinds lists every kind, in the order of the documentation.
func Kinds() []Kind {
	return []Kind{
		fileKind(), directoryKind(), lineKind(), packageKind(), userKind(), groupKind(), authorizedKeysKind(),
		unitKind(), sysctlKind(), cronKind(), gitKind(), archiveKind(), hostnameKind(), commandKind(),
	}
}

func ownership(mode string) []Key {
	return []Key{
		{Name: "owner", Type: Text, Doc: "User that it belongs to. Default root."},
		{Name: "group", Type: Text, Doc: "Group that it belongs to. Default: root."},
		{Name: "mode", Type: Mode, Doc: "Permissions in octal, quoted. Default \"" + mode + "\"."},
	}
}

func absent(doc string) Key { return Key{Name: "absent", Type: Bool, Doc: doc} }
