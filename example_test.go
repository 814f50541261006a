package hozo_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"

	"github.com/hozo-dev/hozo"
	"github.com/hozo-dev/hozo/bus"
	"github.com/hozo-dev/hozo/task"
	"github.com/hozo-dev/hozo/web"
)

type Order struct{ ID, Country string }

var (
	Orders   = bus.NewTopic[Order]("orders")
	Priced   = bus.NewTopic[Order]("orders.priced")
	Invoices = task.NewKind[Order]("invoice", task.Config{})
)

// A whole service: a stage that passes events on and leaves the slow work to a task.
func Example() {
	hozo.Main(
		hozo.Stage(Orders, func(ctx context.Context, e bus.Event[Order], out *bus.Out) error {
			if e.Value.Country == "" {
				return bus.Reject("orders/no-country", errors.New("the order has no country"))
			}
			return errors.Join(Priced.Send(out, e.Value), Invoices.EnqueueFrom(out, e.Value))
		}),
		hozo.Handle(Invoices, func(ctx context.Context, t task.Task[Order]) error {
			fmt.Println("writing invoice", t.ID)
			return nil
		}),
	)
}

// A handler that publishes needs the service's connection: With builds its part from it.
func ExampleWith() {
	hozo.Main(hozo.With(func(s *hozo.Service) ([]hozo.Part, error) {
		mux := http.NewServeMux()
		mux.HandleFunc("POST /orders", func(w http.ResponseWriter, r *http.Request) {
			var o Order
			if err := json.NewDecoder(r.Body).Decode(&o); err != nil {
				web.Fault(w, http.StatusBadRequest, err)
				return
			}
			id, err := Orders.Publish(r.Context(), s.Conn(), o)
			if err != nil {
				web.Fault(w, http.StatusServiceUnavailable, err)
				return
			}
			web.JSON(w, http.StatusCreated, map[string]string{"event": id.String()})
		})
		return []hozo.Part{hozo.HTTP(mux)}, nil
	}))
}
