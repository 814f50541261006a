package main

import (
	"context"
	"encoding/json"
	"errors"

	"github.com/hibiken/asynq"
)

// asynqProduce enqueues task by task, the only way there is, from many goroutines.
func asynqProduce(ctx context.Context, s settings) error {
	redis, err := asynq.ParseRedisURI(s.url)
	if err != nil {
		return err
	}
	client := asynq.NewClient(redis)
	defer client.Close()
	if err := client.Ping(); err != nil {
		return err
	}
	return s.each(s.parallel, func(j job) error {
		data, err := json.Marshal(j)
		if err == nil {
			_, err = client.EnqueueContext(ctx, asynq.NewTask("bench", data))
		}
		return err
	}, func() error { return nil })
}

func asynqWork(_ context.Context, s settings) error {
	redis, err := asynq.ParseRedisURI(s.url)
	if err != nil {
		return err
	}
	t := newTally(s.n)
	server := asynq.NewServer(redis, asynq.Config{Concurrency: s.parallel, LogLevel: asynq.FatalLevel})
	handler := asynq.HandlerFunc(func(_ context.Context, task *asynq.Task) error {
		s.work()
		t.addJSON(task.Payload())
		return nil
	})
	if err := server.Start(handler); err != nil {
		return err
	}
	ready()
	err = errors.Join(t.finish(), s.rest())
	server.Shutdown()
	return err
}
