package task

import "time"

// OnStep has f called with the name of every step; only before anything runs.
func OnStep(f func(name string)) { step = f }

// SetOrphanAge changes after what time a lock without a task may be taken over; only before anything runs.
func SetOrphanAge(d time.Duration) { orphanAge = d }
