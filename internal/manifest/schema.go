package manifest

import (
	"encoding/json"
	"fmt"
	"maps"
)

// Schema returns the JSON Schema (draft 2020-12) of hozo.yaml, indented, for editors. It is made of the same tables that
// Parse decodes with. It says what one value may be; what values must be together, as that every subject is stored by a
// stream, only Parse checks.
func Schema() ([]byte, error) {
	out := schema{
		"$schema":     "https://json-schema.org/draft/2020-12/schema",
		"$id":         "https://github.com/hozo-dev/hozo/schema/hozo.yaml.json",
		"title":       "hozo.yaml",
		"description": "The services, streams and wiring of a Hozo project.",
	}
	maps.Copy(out, manifestShape().schema)
	data, err := json.MarshalIndent(out, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("encode schema: %w", err)
	}
	return append(data, '\n'), nil
}
