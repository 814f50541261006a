package hozo

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/hozo-dev/hozo/bus"
	"github.com/hozo-dev/hozo/fault"
	"github.com/hozo-dev/hozo/internal/lifecycle"
	"github.com/hozo-dev/hozo/task"
	"github.com/hozo-dev/hozo/web"
)

// Part is one thing that a service does. The functions of this package make them.
type Part struct {
	needsBus bool
	kind     string           // of the tasks that it does
	isolated bool             // it runs in the children that do isolated tasks, too
	grace    time.Duration    // of a Grace; else 0
	use      []bus.Middleware // of a Use
	conn     *bus.Conn        // of a Bus
	more     func(*Service) ([]Part, error)
	build    func(*Service, time.Duration) (member, error) // the duration is the parts' share of the grace
}

// layer is when a member starts, and in reverse when it stops.
type layer int

const (
	layerReports layer = iota // first up, last down
	layerFuncs                // one by one
	layerWork                 // one by one up, together down
	layerHTTP                 // up after the other work, down with it
)

// member is a built Part.
type member struct {
	name    string
	layer   layer
	runner  lifecycle.Runner
	workers int          // that the bus does not count itself
	discard func() error // releases what building took, when it will not run; may be nil
}

// Stage handles the events of topic, and of everything below it, with fn. At most one config may be given. The service
// needs the topic's stream under consumes.
func Stage[T any](topic bus.Topic[T], fn bus.HandlerFunc[T], config ...bus.StageConfig) Part {
	return Part{needsBus: true, build: func(s *Service, grace time.Duration) (member, error) {
		name := "stage " + topic.Subject()
		cfg, err := one(name, config)
		if err != nil {
			return member{}, err
		}
		if cfg.Drain <= 0 {
			cfg.Drain = grace
		}
		cfg.Use = slices.Concat(s.use, cfg.Use)
		stage, err := bus.NewStage(s.conn, topic, fn, cfg)
		if err != nil {
			return member{}, fmt.Errorf("%s: %w", name, err)
		}
		return member{name: name, layer: layerWork, runner: stage}, nil
	}}
}

// Collect joins the events of topic by key and hands fn each set of them, as bus.NewCollect says. The service needs the
// topic's stream under consumes with ordered: true, and the stream a key.
func Collect[T any](topic bus.Topic[T], fn bus.CollectFunc[T], config bus.CollectConfig) Part {
	return Part{needsBus: true, build: func(s *Service, grace time.Duration) (member, error) {
		name, cfg := "collect "+topic.Subject(), config
		if cfg.Stage.Drain <= 0 {
			cfg.Stage.Drain = grace
		}
		cfg.Stage.Use = slices.Concat(s.use, cfg.Stage.Use)
		stage, err := bus.NewCollect(s.conn, topic, fn, cfg)
		if err != nil {
			return member{}, fmt.Errorf("%s: %w", name, err)
		}
		return member{name: name, layer: layerWork, runner: stage}, nil
	}}
}

// Handle does queued tasks of kind with fn. At most one config may be given. The service needs the kind under handles.
func Handle[T any](kind task.Kind[T], fn func(ctx context.Context, t task.Task[T]) error, config ...task.WorkerConfig) Part {
	return handle(kind.Name(), config, func(c *bus.Conn, cfg task.WorkerConfig) *task.Worker[T] {
		return task.NewWorker(c, kind, fn, cfg)
	})
}

// HandleResult is Handle for tasks that have a result, which whoever enqueued one waits for by its handle.
func HandleResult[A, R any](kind task.ResultKind[A, R], fn func(ctx context.Context, t task.Task[A]) (R, error), config ...task.WorkerConfig) Part {
	return handle(kind.Name(), config, func(c *bus.Conn, cfg task.WorkerConfig) *task.Worker[A] {
		return task.NewResultWorker(c, kind, fn, cfg)
	})
}

// HandleBatch is Handle for up to Batch tasks of the config at once, for what is cheaper done together, as rows of a
// database are. fn may tell by a [task.BatchError] what became of each.
func HandleBatch[T any](kind task.Kind[T], fn func(ctx context.Context, ts []task.Task[T]) error, config ...task.WorkerConfig) Part {
	return handle(kind.Name(), config, func(c *bus.Conn, cfg task.WorkerConfig) *task.Worker[T] {
		return task.NewBatchWorker(c, kind, fn, cfg)
	})
}

func handle[T any](kind string, config []task.WorkerConfig, newWorker func(*bus.Conn, task.WorkerConfig) *task.Worker[T]) Part {
	return Part{needsBus: true, kind: kind, build: func(s *Service, grace time.Duration) (member, error) {
		name := "task " + kind
		cfg, err := one(name, config)
		if err != nil {
			return member{}, err
		}
		if cfg.DrainGrace <= 0 {
			cfg.DrainGrace = grace
		}
		if cfg.Logger == nil {
			cfg.Logger = s.log
		}
		cfg.Use = slices.Concat(s.use, cfg.Use)
		worker := newWorker(s.conn, cfg)
		return member{name: name, layer: layerWork, runner: worker, workers: worker.Concurrency()}, nil
	}}
}

// Relay enqueues the tasks that [task.Kind.EnqueueTx] has written into a PostgreSQL database with a transaction of the
// caller's. At most one config may be given. The service needs their kinds under enqueues.
func Relay(db *sql.DB, config ...task.RelayConfig) Part {
	return Part{needsBus: true, build: func(s *Service, _ time.Duration) (member, error) {
		cfg, err := one("relay", config)
		if err != nil {
			return member{}, err
		}
		if cfg.Logger == nil {
			cfg.Logger = s.log
		}
		return member{name: "relay", layer: layerWork, runner: task.NewRelay(s.conn, db, cfg)}, nil
	}}
}

// Serve answers call with fn. At most one config may be given. The service needs the call's subject under serves.
func Serve[Req, Resp any](
	call bus.Call[Req, Resp], fn func(ctx context.Context, req Req) (Resp, error), config ...bus.ServeConfig,
) Part {
	return Part{needsBus: true, build: func(s *Service, grace time.Duration) (member, error) {
		name := "call " + call.Subject()
		cfg, err := one(name, config)
		if err != nil {
			return member{}, err
		}
		if cfg.Drain <= 0 {
			cfg.Drain = grace
		}
		cfg.Use = slices.Concat(s.use, cfg.Use)
		return member{name: name, layer: layerWork, runner: call.Serve(s.conn, fn, cfg)}, nil
	}}
}

// Watch hands the live events of topic, and of everything below it, to fn; every instance gets every event. At most one
// config may be given. The service needs the topic under watches.
func Watch[T any](topic bus.Topic[T], fn bus.WatchFunc[T], config ...bus.WatchConfig) Part {
	return Part{needsBus: true, build: func(s *Service, grace time.Duration) (member, error) {
		name := "watch " + topic.Subject()
		cfg, err := one(name, config)
		if err != nil {
			return member{}, err
		}
		if cfg.Drain <= 0 {
			cfg.Drain = grace
		}
		cfg.Use = slices.Concat(s.use, cfg.Use)
		return member{name: name, layer: layerWork, runner: topic.Watch(s.conn, fn, cfg)}, nil
	}}
}

// HTTP serves handler. At most one config may be given. Without one it serves on the first socket that the platform
// holds for the service, or else on 127.0.0.1:$PORT; see [web.Config]. /readyz asks the Service's Ready and then the
// config's.
func HTTP(handler http.Handler, config ...web.Config) Part {
	return Part{build: func(s *Service, grace time.Duration) (member, error) {
		cfg, err := one("http", config)
		if err != nil {
			return member{}, err
		}
		if cfg.Logger == nil {
			cfg.Logger = s.log
		}
		if cfg.DrainGrace <= 0 {
			cfg.DrainGrace = grace
		}
		own := cfg.Ready
		cfg.Ready = func() error {
			if err := s.Ready(); err != nil || own == nil {
				return err
			}
			return own()
		}
		name := "http"
		if cfg.Name != "" {
			name += " " + cfg.Name
		}
		if s.conn != nil {
			handler = counted(s.conn.Counters(), handler)
		}
		server, err := web.New(handler, cfg)
		if err != nil {
			return member{}, fmt.Errorf("%s: %w", name, err)
		}
		return member{name: name, layer: layerHTTP, runner: server, discard: server.Close}, nil
	}}
}

// counted counts the requests in flight for the reports, and puts each into the trace that it names. A mux stays visible: the server looks for its patterns.
func counted(c *bus.Counters, next http.Handler) http.Handler {
	count := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		done := c.Request()
		defer done()
		if ctx := bus.Continue(r.Context(), r.Header); ctx != r.Context() {
			r = r.WithContext(ctx)
		}
		next.ServeHTTP(w, r)
	})
	if mux, ok := next.(router); ok {
		return countedRouter{count, mux}
	}
	return count
}

// router is what a mux can tell of its patterns.
type router interface {
	Handler(r *http.Request) (http.Handler, string)
}

type countedRouter struct {
	count http.Handler
	mux   router
}

func (c countedRouter) ServeHTTP(w http.ResponseWriter, r *http.Request) { c.count.ServeHTTP(w, r) }

func (c countedRouter) Handler(r *http.Request) (http.Handler, string) { return c.mux.Handler(r) }

// Func runs fn, for anything that the other parts are not. It counts as ready at once. When fn returns, nil or not, the
// whole service stops; a helper that runs as long as the service waits for ctx. ctx ends after all handlers have
// returned, so that they can lean on fn to their end.
func Func(name string, fn func(ctx context.Context, s *Service) error) Part {
	return Part{isolated: true, build: func(s *Service, _ time.Duration) (member, error) {
		return member{name: name, layer: layerFuncs, runner: newFuncRunner(func(ctx context.Context) error { return fn(ctx, s) })}, nil
	}}
}

// Runner is work of a service's own making. Run blocks until ctx ends, or fails; Ready's channel is closed once the work
// has begun, and may never be.
type Runner interface {
	Run(ctx context.Context) error
	Ready() <-chan struct{}
}

// Work runs r beside the stages: it starts with them, the service is ready only when r is, and it stops with them, ctx
// ending at once and r finishing what it has in hand. When Run returns, nil or not, the whole service stops.
func Work(name string, r Runner) Part {
	return Part{build: func(*Service, time.Duration) (member, error) {
		return member{name: name, layer: layerWork, runner: r}, nil
	}}
}

// With makes parts from the service, for handlers that need its connection or its log:
//
//	hozo.With(func(s *hozo.Service) ([]hozo.Part, error) {
//		return []hozo.Part{hozo.HTTP(newAPI(s.Conn()))}, nil
//	})
//
// fn is called once, before any part starts.
func With(fn func(s *Service) ([]Part, error)) Part { return Part{more: fn} }

// Grace says how long the service may take to stop, from the signal to the end of the process. Default 10s, which is
// the manifest's; set both when handlers need longer. A fifth of it, at most two seconds, is kept for the last report
// and the goodbye to the bus.
func Grace(d time.Duration) Part { return Part{grace: d} }

// Use puts middleware around the handlers of all stages, sets, tasks, calls and watches of the service, wherever it stands
// among the parts, outside of what their configs Use. The first is outermost.
func Use(middleware ...bus.Middleware) Part { return Part{use: middleware} }

// Bus has the service use this connection, which it closes at its end, in place of one that it makes from the platform's
// environment. It stands among the parts that Run is given, not in a With. Package hozotest runs services by it.
func Bus(conn *bus.Conn) Part { return Part{conn: conn} }

// one returns the only config or the zero one.
func one[C any](name string, configs []C) (cfg C, err error) {
	switch len(configs) {
	case 0:
		return cfg, nil
	case 1:
		return configs[0], nil
	default:
		return cfg, &fault.Error{
			Code: "hozo/two-configs", Kind: fault.Misuse, What: fmt.Sprintf("%d configs were given", len(configs)), Where: name, Fix: "give at most one",
		}
	}
}

// expand replaces every With by its parts, however deep.
func (s *Service) expand(parts []Part) (flat []Part, err error) {
	var errs []error
	for _, p := range parts {
		if p.more == nil {
			flat = append(flat, p)
			continue
		}
		made, err := p.more(s)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		inner, err := s.expand(made)
		if err != nil {
			errs = append(errs, err)
		}
		flat = append(flat, inner...)
	}
	return flat, errors.Join(errs...)
}

// funcRunner makes a Runner of a function that is ready at once.
type funcRunner struct {
	fn    func(context.Context) error
	ready chan struct{}
}

func newFuncRunner(fn func(context.Context) error) *funcRunner {
	ready := make(chan struct{})
	close(ready)
	return &funcRunner{fn, ready}
}

func (f *funcRunner) Run(ctx context.Context) error { return f.fn(ctx) }
func (f *funcRunner) Ready() <-chan struct{}        { return f.ready }

var _ lifecycle.Runner = (*funcRunner)(nil)
