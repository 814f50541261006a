package supervisor

import (
	"context"

	"github.com/hozo-dev/hozo/fault"
	"github.com/hozo-dev/hozo/internal/keeper"
	"github.com/hozo-dev/hozo/internal/plan"
)

func keeperLog(l plan.Log) keeper.Log {
	return keeper.Log{Path: l.Path, MaxBytes: l.MaxBytes, Keep: l.Keep, Age: l.Age, Compress: l.Compress, Full: l.Full}
}

// relog has a running process logged as is wanted now. A keeper from before an upgrade may not know how to; then it
// takes effect at the next start, as does another path.
func (o *owner) relog(ctx context.Context, process string) {
	err := o.keeper.SetLog(ctx, process, keeperLog(o.want.Log))
	if err != nil && ctx.Err() == nil && fault.Code(err) != "keeper/no-process" {
		o.log.WarnContext(ctx, "how it is logged changes at its next start", "err", err)
	}
}
