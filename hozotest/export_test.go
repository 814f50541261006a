package hozotest

import "time"

// SetPatience changes how long a wait may take.
func (e *Env) SetPatience(d time.Duration) { e.cfg.Patience = d }

// NewOn is New on a broker that start starts.
var NewOn = newEnv
