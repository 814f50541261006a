package cli

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/hozo-dev/hozo/internal/broker"
	"github.com/hozo-dev/hozo/internal/builtin"
	"github.com/hozo-dev/hozo/internal/keeper"
	"github.com/hozo-dev/hozo/internal/lifecycle"
	"github.com/hozo-dev/hozo/internal/node"
	"github.com/hozo-dev/hozo/internal/sdnotify"
)

// The commands of this file are the platform's own processes. `hozo up` starts the first, which starts the rest; they
// are hidden because nobody else needs to.

func newKeeper(o *options) *cobra.Command {
	return o.daemon(&cobra.Command{Use: "keeper", Short: "Parent of all processes of a project"}, func(cmd *cobra.Command) error {
		state, err := o.stateDir()
		if err != nil {
			return err
		}
		self, err := os.Executable()
		if err != nil {
			return fmt.Errorf("find own executable: %w", err)
		}
		k, err := keeper.New(keeper.Config{
			State: state, Version: Version, Logger: o.logger("keeper"),
			Node:    []string{self, "node", "--state", state, "--file", o.abs(o.file), "--env", o.manifest},
			NodeEnv: os.Environ(),
		})
		if err != nil {
			return err
		}
		return k.Run(cmd.Context())
	})
}

func newNode(o *options) *cobra.Command {
	return o.daemon(&cobra.Command{Use: "node", Short: "Brings the host to what the manifest says"}, func(cmd *cobra.Command) error {
		state, err := o.stateDir()
		if err != nil {
			return err
		}
		self, err := os.Executable()
		if err != nil {
			return fmt.Errorf("find own executable: %w", err)
		}
		n, err := node.New(node.Config{State: state, File: o.abs(o.file), Env: o.manifest, Executable: self, Logger: o.logger("node")})
		if err != nil {
			return err
		}
		return n.Run(cmd.Context())
	})
}

func newBroker(o *options) *cobra.Command {
	var cfg broker.Config
	var certificate broker.TLSFiles
	doors := map[broker.DoorKind]*string{broker.DoorNATS: new(string), broker.DoorMQTT: new(string), broker.DoorWebSocket: new(string)}
	cmd := o.daemon(&cobra.Command{Use: "broker", Short: "Message engine of a project"}, func(cmd *cobra.Command) error {
		state, err := o.stateDir()
		if err != nil {
			return err
		}
		for kind, address := range doors {
			if *address != "" {
				cfg.Doors = append(cfg.Doors, broker.Door{Kind: kind, Address: *address})
			}
		}
		if certificate.Cert != "" {
			cfg.TLS = &certificate
		}
		cfg.Dir, cfg.Logger = filepath.Join(state, "broker"), o.logger("broker")
		b, err := broker.New(cfg)
		if err != nil {
			return err
		}
		var g lifecycle.Group
		g.Add("broker", b)
		g.Add("layout", node.NewProvisioner(state, b.URL))
		g.Add("readiness", herald{})
		return g.Run(cmd.Context())
	})
	cmd.Flags().IntVar(&cfg.Port, "port", 0, "port on 127.0.0.1")
	cmd.Flags().Int64Var(&cfg.Memory, "memory", 0, "soft memory limit in bytes")
	cmd.Flags().Int64Var(&cfg.Store, "store", 0, "most bytes of all streams on disk")
	cmd.Flags().BoolVar(&cfg.SyncAlways, "sync-always", false, "sync to disk before every acknowledgement")
	cmd.Flags().StringVar(doors[broker.DoorNATS], "listen", "", "host:port for clients by NATS")
	cmd.Flags().StringVar(doors[broker.DoorMQTT], "mqtt", "", "host:port for clients by MQTT")
	cmd.Flags().StringVar(doors[broker.DoorWebSocket], "websocket", "", "host:port for clients by WebSocket")
	cmd.Flags().StringVar(&certificate.Cert, "tls-cert", "", "certificate for clients")
	cmd.Flags().StringVar(&certificate.Key, "tls-key", "", "its private key")
	cmd.Flags().StringVar(&certificate.CA, "tls-ca", "", "authority of the clients' certificates")
	cmd.Flags().StringArrayVar(&cfg.Origins, "origin", nil, "origin of pages that may connect by WebSocket")
	return cmd
}

// herald tells the keeper that everything before it in its group is ready, and later that it stops.
type herald struct{}

// Run implements lifecycle.Runner.
func (herald) Run(ctx context.Context) error {
	if err := sdnotify.Send(sdnotify.Ready); err != nil {
		return err
	}
	err := sdnotify.Feed(ctx)
	<-ctx.Done()
	return errors.Join(err, sdnotify.Send(sdnotify.Stopping))
}

// Ready implements lifecycle.Runner: nothing waits for it.
func (herald) Ready() <-chan struct{} {
	ready := make(chan struct{})
	close(ready)
	return ready
}

func newService(o *options) *cobra.Command {
	cmd := o.daemon(&cobra.Command{Use: "service NAME", Short: "A built-in service", Args: cobra.ExactArgs(1)}, nil)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return builtin.Run(cmd.Context(), args[0])
	}
	return cmd
}

func (o *options) daemon(cmd *cobra.Command, run func(*cobra.Command) error) *cobra.Command {
	cmd.Hidden = true
	if cmd.Args == nil {
		cmd.Args = cobra.NoArgs
	}
	if run != nil {
		cmd.RunE = func(cmd *cobra.Command, _ []string) error { return run(cmd) }
	}
	return cmd
}

func (o *options) logger(part string) *slog.Logger {
	return slog.New(slog.NewTextHandler(o.env.Stderr, nil)).With("part", part)
}
