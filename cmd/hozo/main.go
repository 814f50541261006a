// Command hozo runs a set of small programs as one service.
package main

import (
	"context"
	"os"

	"github.com/hozo-dev/hozo/internal/cli"
)

func main() {
	os.Exit(cli.Main(context.Background(), cli.OS()))
}
