package conf

import (
	"os"
	"path/filepath"
	"testing"
)

// loadText loads a file of the given text.
func loadText(t *testing.T, text string) (*Config, []Warning, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "supervisord.conf")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return Load(path, Options{Environ: []string{"HOME=/root", "PATH=/usr/bin:/bin"}, NodeName: "host"})
}
