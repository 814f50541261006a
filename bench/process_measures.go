package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"os"
	"strings"
	"syscall"
	"time"
)

// idle measures the processor time of a manager that has nothing to do.
func (p *processRace) idle(m manager) error {
	pids, err := m.pids()
	if err != nil {
		return err
	}
	before, err := runOf(pids)
	if err != nil {
		return err
	}
	began := time.Now()
	time.Sleep(pick(p.session.quick, quickIdle, idleTime))
	after, err := runOf(pids)
	p.grid.add(m.name(), "idle CPU", 100*(after-before).Seconds()/time.Since(began).Seconds())
	return err
}

// respawn kills programs one after the other, each when the one before is back: a second death would wake a manager that
// looks once a second.
func (p *processRace) respawn(ctx context.Context, m manager, heard *hellos, programs []program) error {
	victims := programs[:pick(p.session.quick, quickKills, kills)]
	var took sample
	for _, victim := range victims {
		dead, at := heard.of(victim.name).pid, monotonic()
		if err := syscall.Kill(dead, syscall.SIGKILL); err != nil {
			return fmt.Errorf("kill %s: %w", victim.name, err)
		}
		err := heard.await(ctx, victim.name+" to be back", func(last map[string]hello) bool { return last[victim.name].pid != dead })
		if err != nil {
			return err
		}
		took = append(took, milliseconds(heard.of(victim.name).at-at))
	}
	p.grid.add(m.name(), "respawn p50", took.quantile(0.5))
	p.grid.add(m.name(), "respawn p99", took.quantile(0.99))
	want := len(programs) + 1 + len(victims)
	if got := heard.heard(); got != want { // each victim was started once more, nothing else was
		return fmt.Errorf("%w: programs started %d times, %d expected", errWrong, got, want)
	}
	p.session.report.Checks = append(p.session.report.Checks,
		fmt.Sprintf("%s: %d programs killed, each is back once, no other was started again", m.name(), len(victims)))
	return nil
}

// flood has a program write a lot and waits until all of it is in its log, which is then checked line by line.
func (p *processRace) flood(ctx context.Context, m manager, heard *hellos, one program, amount int) error {
	pids, err := m.pids()
	if err != nil {
		return err
	}
	before, err := cpuOf(pids)
	if err != nil {
		return err
	}
	began := time.Now()
	if err := syscall.Kill(heard.of(one.name).pid, syscall.SIGUSR1); err != nil {
		return err
	}
	err = heard.await(ctx, "the program to have written", func(last map[string]hello) bool { return last[one.name].what == "flood" })
	if err != nil {
		return err
	}
	path, prefix := m.log(one.name)
	size := int64(amount) / 100 * int64(100+len(prefix))
	err = poll(ctx, "the output in its log", 2*time.Millisecond, func() (bool, error) {
		info, err := os.Stat(path)
		return err == nil && info.Size() >= size, err
	})
	if err != nil {
		return err
	}
	took := time.Since(began)
	after, err := cpuOf(pids)
	if err != nil {
		return err
	}
	p.grid.add(m.name(), "log capture", megabytes(int64(amount), took))
	p.grid.add(m.name(), "log CPU", (after-before).Seconds()*1e9/float64(amount))
	lines, err := countFloodLines(path, prefix)
	if err != nil {
		return err
	}
	if lines != amount/100 {
		return fmt.Errorf("%w: %d lines are in the log, %d were written", errWrong, lines, amount/100)
	}
	p.session.report.Checks = append(p.session.report.Checks, fmt.Sprintf("%s: all %d lines are in the log, each whole", m.name(), lines))
	return os.Truncate(path, 0) // room for the next contender
}

// memory reads what a manager holds with n programs.
func (p *processRace) memory(m manager, n int) error {
	parents, err := m.parents()
	if err != nil {
		return err
	}
	var most float64
	for _, pid := range parents {
		rss, err := memoryOf(pid, "status", "VmRSS:")
		if err != nil {
			return err
		}
		most = max(most, rss)
	}
	p.grid.add(m.name(), fmt.Sprintf("RSS parent, %d", n), most)
	if n != ordinary {
		return nil
	}
	pids, err := m.pids()
	if err != nil {
		return err
	}
	var sum float64
	for _, pid := range pids {
		pss, err := memoryOf(pid, "smaps_rollup", "Pss:")
		if err != nil {
			return err
		}
		sum += pss
	}
	p.grid.add(m.name(), "PSS all, 200", sum)
	return nil
}

// countFloodLines counts the lines of a log that are whole: prefix and 99 times x.
func countFloodLines(path, prefix string) (int, error) {
	file, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer file.Close()
	whole, lines := 0, bufio.NewScanner(file)
	want := []byte(prefix + strings.Repeat("x", 99))
	for lines.Scan() {
		if bytes.Equal(lines.Bytes(), want) {
			whole++
		}
	}
	return whole, lines.Err()
}
