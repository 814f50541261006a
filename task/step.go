package task

// step is called between any two exchanges with the broker that belong together. Tests end the process in it.
var step = func(string) {}

// The steps, by what has just been done.
const (
	stepLocked   = "lock taken"
	stepHandled  = "handler returned"
	stepDone     = "end recorded"
	stepRetry    = "retry recorded"
	stepCopied   = "next copy stored"
	stepDead     = "death recorded"
	stepLetter   = "letter stored"
	stepReleased = "lock given back"
	stepArrived  = "arrival recorded"
	stepBegun    = "next task stored"
	stepFollowed = "followers told"
	stepSaved    = "step saved"
	stepRelayed  = "rows of the outbox in the queue"
	stepApart    = "frame taken apart"
)
