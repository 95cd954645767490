// Package bench measures what one call of an agent costs, beside a yardstick and beside the shell
// agent that it replaces. What counts are ratios of one run: the calls take turns, so that all of
// them meet the same machine.
package bench

import (
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"time"
)

// Call is something to be measured.
type Call struct {
	Name string
	Path string
	Args []string
	Env  []string
	// Code is the exit code that a right answer has.
	Code int
}

// Cost is what one call took.
type Cost struct {
	// Wall is from the fork to the end; CPU is what it and its children used of the processors.
	Wall, CPU time.Duration
	// Faults are the page faults, a measure that a busy machine does not change.
	Faults int64
}

// Turns runs the calls in turn, so many rounds, and gives each call's median costs. Every answer
// must be right: a call that fails is fast for the wrong reason. The calling goroutine's thread
// starts the children, which therefore live in its namespaces.
func Turns(rounds int, calls []Call) ([]Cost, error) {
	all := make([][]Cost, len(calls))
	for range rounds {
		for i, c := range calls {
			cost, err := c.run()
			if err != nil {
				return nil, err
			}
			all[i] = append(all[i], cost)
		}
	}
	medians := make([]Cost, len(calls))
	for i, costs := range all {
		medians[i] = Cost{
			Wall:   median(costs, func(c Cost) time.Duration { return c.Wall }),
			CPU:    median(costs, func(c Cost) time.Duration { return c.CPU }),
			Faults: median(costs, func(c Cost) int64 { return c.Faults }),
		}
	}
	return medians, nil
}

func median[T time.Duration | int64](costs []Cost, of func(Cost) T) T {
	values := make([]T, 0, len(costs))
	for _, c := range costs {
		values = append(values, of(c))
	}
	slices.Sort(values)
	return values[len(values)/2]
}

func (c Call) run() (Cost, error) {
	cmd := exec.Command(c.Path, c.Args...)
	cmd.Env = c.Env
	said := &strings.Builder{}
	// A file, not a pipe: a pipe would be copied by a goroutine that is measured too.
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		return Cost{}, err
	}
	defer null.Close()
	cmd.Stdout, cmd.Stderr = null, null
	begin := time.Now()
	err = cmd.Run()
	wall := time.Since(begin)
	if cmd.ProcessState == nil || cmd.ProcessState.ExitCode() != c.Code {
		again := exec.Command(c.Path, c.Args...)
		again.Env, again.Stdout, again.Stderr = c.Env, said, said
		_ = again.Run()
		return Cost{}, fmt.Errorf("%s %v: %w, expected exit code %d\n%s", c.Path, c.Args, err, c.Code, said)
	}
	cost := Cost{Wall: wall, CPU: cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()}
	if usage, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage); ok {
		cost.Faults = usage.Minflt
	}
	return cost, nil
}

// Build compiles a program of this module the way `make build` does.
func Build(pkg, to string) error {
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", to, pkg)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go build %s: %w\n%s", pkg, err, out)
	}
	return nil
}
