package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	tea "charm.land/bubbletea/v2"

	"github.com/charmbracelet/x/ansi"

	"github.com/hozo-dev/hozo/internal/node"
	"github.com/hozo-dev/hozo/internal/status"
)

// topScreen shows what flows until q, Ctrl-C or the end of ctx, and leaves the terminal as it was.
func (o *options) topScreen(ctx context.Context, client *node.Client, out *os.File, every time.Duration, order int) error {
	first, err := client.Status(ctx)
	if err != nil {
		return err
	}
	m := &topModel{page: topPage{order: order, paint: newPainter(out, o.env)}, last: first}
	m.take(first)
	program := tea.NewProgram(m, tea.WithContext(ctx), tea.WithInput(o.env.Stdin), tea.WithOutput(out), tea.WithoutSignalHandler())
	asking, stop := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() { askStatus(asking, client, every, program.Send) })
	_, err = program.Run()
	stop()
	wg.Wait()
	if ctx.Err() != nil || errors.Is(err, tea.ErrInterrupted) {
		return nil // the way to end it
	}
	return err
}

// askStatus sends what flows to a program each interval, or why it is not known. It ends with ctx.
func askStatus(ctx context.Context, client *node.Client, every time.Duration, send func(tea.Msg)) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		s, err := client.Status(ctx)
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			send(err)
		default:
			send(s)
		}
	}
}

// topModel is the state of the screen. Bubble Tea calls it from one goroutine.
type topModel struct {
	page topPage
	last status.Snapshot // against which rates are measured
	name string          // of the selected service: its row changes with the order
	held bool
	err  error // why the state is not known now
}

func (*topModel) Init() tea.Cmd { return nil }

func (m *topModel) Update(msg tea.Msg) (tea.Model, tea.Cmd) {
	switch msg := msg.(type) {
	case tea.WindowSizeMsg:
		m.page.width, m.page.height = msg.Width, msg.Height-1 // the last line is the help
	case status.Snapshot:
		m.err = nil
		if !m.held {
			m.take(msg)
		}
	case error:
		m.err = msg
	case tea.KeyPressMsg:
		return m, m.key(msg.String())
	}
	return m, nil
}

// take shows a new state of the project.
func (m *topModel) take(now status.Snapshot) {
	m.page.top = topOf(m.last, now)
	m.last = now
	m.find()
}

// find puts the mark on the selected service, or on the nearest row when it is gone.
func (m *topModel) find() {
	services := m.page.shown()
	for i, s := range services {
		if s.Name == m.name {
			m.page.selected = i
			return
		}
	}
	m.move(0)
}

// move marks a row so many below.
func (m *topModel) move(by int) {
	services := m.page.shown()
	m.page.selected = max(min(m.page.selected+by, len(services)-1), 0)
	m.name = ""
	if len(services) > 0 {
		m.name = services[m.page.selected].Name
	}
}

func (m *topModel) key(key string) tea.Cmd {
	switch key {
	case "q", "ctrl+c":
		return tea.Quit
	case "ctrl+z":
		return tea.Suspend
	case "esc":
		m.page.only = ""
	case "enter":
		if m.page.only == "" {
			m.page.only = m.name
		} else {
			m.page.only = ""
		}
	case "up", "k":
		m.move(-1)
		return nil
	case "down", "j":
		m.move(1)
		return nil
	case "home", "g":
		m.move(-len(m.page.Services))
		return nil
	case "end", "G":
		m.move(len(m.page.Services))
		return nil
	case "s":
		m.page.order = (m.page.order+2)%(len(topColumns)+1) - 1
	case "S":
		m.page.order = (m.page.order+1+len(topColumns))%(len(topColumns)+1) - 1
	case "r":
		m.page.reverse = !m.page.reverse
	case "space":
		m.held = !m.held
	}
	m.find()
	return nil
}

func (m *topModel) View() tea.View {
	page := m.page
	if m.page.height <= 0 {
		page.height = 23 // until the terminal has told its size
	}
	lines := page.lines()
	for len(lines) < page.height {
		lines = append(lines, "")
	}
	v := tea.NewView(strings.Join(append(lines, m.help()), "\n"))
	v.AltScreen = true
	return v
}

// help is the last line: the keys, and what keeps the picture from being new.
func (m *topModel) help() string {
	paint := m.page.paint
	sorted := "manifest"
	if m.page.order >= 0 {
		sorted = topColumns[m.page.order].key
	}
	line := paint.dim(fmt.Sprintf("q quit  ↑↓ choose  enter details  s sort (%s)  r reverse  space hold", sorted))
	switch {
	case m.err != nil:
		line = paint.red("not up to date: ") + strings.ReplaceAll(m.err.Error(), "\n", " ") + "  " + paint.dim("q quit")
	case m.held:
		line = paint.yellow("held; space goes on") + "  " + line
	}
	if m.page.width > 0 {
		line = ansi.Truncate(line, m.page.width, "…")
	}
	return line
}
