package supervisor

import (
	"encoding/json"

	"github.com/hozo-dev/hozo/internal/plan"
)

// labelParts is the label of a process that holds the Cold parts of its Spec, so that the next supervisor's plan can name
// the keys that changed. They are digests: no value is in it.
const labelParts = "parts"

// maxPartsBytes keeps the label well within what a keeper takes. An environment of four hundred variables fits; beyond
// it the plan says that something changed and not what.
const maxPartsBytes = 12 << 10

// parts is what a process was started with, or is wanted with, key by key.
type parts struct {
	of   string // hash and hot hash of the spec
	cold plan.Parts
	hot  plan.Parts // nil when nobody knows
}

// wantParts are the parts of what is wanted. The pointer changes only when they do, so that entries can be compared.
func (o *owner) wantParts() *parts {
	of := o.want.Hash() + o.want.HotHash()
	if o.wanted == nil || o.wanted.of != of {
		o.wanted = &parts{of, o.want.Cold(), o.want.Hot()}
	}
	return o.wanted
}

func partsLabel(s plan.Spec) string {
	b, err := json.Marshal(s.Cold())
	if err != nil || len(b) > maxPartsBytes {
		return ""
	}
	return string(b)
}

// partsOf reads the label; nil means that nobody knows.
func partsOf(labels map[string]string) plan.Parts {
	var p plan.Parts
	if json.Unmarshal([]byte(labels[labelParts]), &p) != nil {
		return nil // a process of an older version
	}
	return p
}
