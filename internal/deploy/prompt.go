package deploy

import (
	"errors"
	"io"
	"strings"
	"sync"

	"github.com/hozo-dev/hozo/fault"
)

// prompter reads what the host writes to its standard error, and answers sudo when that asks for the password. The
// prompt is a word that was made up for this session, so nothing else on the host can ask.
type prompter struct {
	prompt string
	answer string // empty: never answers
	in     io.Writer
	wrong  func() // called when sudo asks again
	text   tail

	mu       sync.Mutex
	part     string // the end of the stream, in which a prompt may have begun
	asked    int
	rejected bool
}

func (p *prompter) Write(data []byte) (int, error) {
	n, _ := p.text.Write(data)
	if p.answer == "" {
		return n, nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.part += string(data)
	for {
		_, rest, found := strings.Cut(p.part, p.prompt)
		if !found {
			break
		}
		p.part = rest
		if p.asked++; p.asked > 1 {
			p.rejected = true
			p.wrong()
			return n, nil
		}
		if _, err := io.WriteString(p.in, p.answer+"\n"); err != nil {
			return n, err
		}
	}
	if most := len(p.prompt); len(p.part) > most {
		p.part = p.part[len(p.part)-most:]
	}
	return n, nil
}

// explain says why the agent did not come up.
func (p *prompter) explain(err error, sudo bool) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if f, ok := fault.As(err); ok {
		return f
	}
	said := strings.TrimSpace(strings.ReplaceAll(p.text.String(), p.prompt, ""))
	switch {
	case p.rejected:
		return &fault.Error{Code: "deploy/wrong-password", What: "sudo does not take the password", Fix: "try again with --sudo-password"}
	case !errors.Is(err, io.EOF):
		return err
	case sudo && strings.Contains(said, "password is required"):
		return &fault.Error{Code: "deploy/sudo", What: "sudo asks for a password", Fix: "give it with --sudo-password, or let the user become root without one in /etc/sudoers.d"}
	case sudo && strings.Contains(said, "sudo"):
		return &fault.Error{Code: "deploy/sudo", What: "the user may not become root: " + said, Fix: "install sudo and allow it to the user, log in as root, or set ssh: { sudo: false }"}
	}
	return &fault.Error{Code: "deploy/no-agent", What: "the agent did not come up: " + said, Fix: "see whether the user's shell works: ssh HOST true"}
}
