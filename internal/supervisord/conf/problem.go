package conf

import (
	"errors"
	"fmt"
	"slices"

	"github.com/hozo-dev/hozo/fault"
)

// maxProblems bounds the faults of one Load: more help nobody.
const maxProblems = 64

// problem is one mistake in the file.
type problem struct {
	code, what, fix string
	at              Position
	words           string // Supervisor's message; empty when it is what
}

// spoken is a fault that also knows what Supervisor says of the same mistake.
type spoken struct {
	fault *fault.Error
	words string
}

func (s *spoken) Error() string { return s.fault.Error() }
func (s *spoken) Unwrap() error { return s.fault }

// Message is what Supervisor says of the first mistake in err, an error of Load: the text after "Error: " when it
// starts, and after "CANT_REREAD: " when it reads again. Of any other error it is err.Error().
func Message(err error) string {
	if s, ok := errors.AsType[*spoken](err); ok {
		return s.words
	}
	if err == nil {
		return ""
	}
	return err.Error()
}

// report gathers what is wrong and what is doubtful.
type report struct {
	problems []problem
	warnings []Warning
	// suffix is what Supervisor adds to the messages of the section being read.
	suffix string
}

func (r *report) problem(p problem) {
	if p.words == "" {
		p.words = p.what
	}
	p.words += r.suffix
	p.code = "supervisord/" + p.code
	// A program of many processes repeats its mistake for each.
	for _, known := range r.problems {
		if known.at == p.at && known.code == p.code && known.what == p.what {
			return
		}
	}
	r.problems = append(r.problems, p)
}

func (r *report) warn(at Position, code, fix, text string, args ...any) {
	w := Warning{Code: "supervisord/" + code, Text: fmt.Sprintf(text, args...), Fix: fix, Position: at}
	if !slices.Contains(r.warnings, w) {
		r.warnings = append(r.warnings, w)
	}
}

// err joins the problems in the order in which Supervisor would meet them.
func (r *report) err() error {
	var all []error
	for i, p := range r.problems {
		if i == maxProblems {
			what := fmt.Sprintf("%d more mistakes", len(r.problems)-i)
			all = append(all, &spoken{words: what, fault: &fault.Error{Code: "supervisord/more", Kind: fault.Misuse, What: what, Fix: "correct the ones above first"}})
			break
		}
		all = append(all, &spoken{words: p.words, fault: &fault.Error{Code: p.code, Kind: fault.Misuse, What: p.what, Where: p.at.String(), Fix: p.fix}})
	}
	return errors.Join(all...)
}
