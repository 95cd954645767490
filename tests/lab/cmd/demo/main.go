// Demo shows baton at work on three emulated machines: what moves, how long a
// client saw nothing, and why. It needs nothing but a Debian host and root for
// the first run, which installs QEMU and builds the machines' image.
//
//	go run ./tests/lab/cmd/demo [-list] [ACT …]
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"baton/tests/lab"
)

// act is one thing to show, on a lab of its own.
type act struct {
	name  string
	title string
	stage *lab.Stage
	play  func(ctx context.Context, s *show) error
}

// acts is the program, in the order in which it is shown.
func acts() []act {
	return []act{
		vipAct(),
		nfsAct(),
	}
}

func main() {
	list := flag.Bool("list", false, "list the acts")
	flag.Parse()
	if *list {
		for _, a := range acts() {
			fmt.Printf("%-8s %s\n", a.name, a.title)
		}
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, flag.Args()); err != nil {
		if ctx.Err() != nil {
			fmt.Println("\nstopped; the machines are gone")
			os.Exit(130)
		}
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(ctx context.Context, names []string) error {
	program := acts()
	for _, name := range names {
		if !slices.ContainsFunc(program, func(a act) bool { return a.name == name }) {
			return fmt.Errorf("demo: no act %q; -list names them", name)
		}
	}
	if len(names) > 0 {
		program = slices.DeleteFunc(program, func(a act) bool { return !slices.Contains(names, a.name) })
	}
	fmt.Println("baton's demo: two cluster nodes n1 and n2 and a client c1, real Debian machines under QEMU on this computer.")
	fmt.Println("The first run builds them (about four minutes); later ones thaw them in seconds. Ctrl-C ends everything.")
	var failed error
	for i, a := range program {
		fmt.Printf("\n── act %d of %d: %s ──\n\n", i+1, len(program), a.title)
		err := perform(ctx, a)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			fmt.Printf("\nact %q failed: %v\n", a.name, err)
			failed = errors.Join(failed, fmt.Errorf("act %q failed", a.name))
		}
	}
	return failed
}

func perform(ctx context.Context, a act) error {
	began := time.Now()
	line := func(format string, args ...any) {
		fmt.Printf("%6.1f s  %s\n", time.Since(began).Seconds(), fmt.Sprintf(format, args...))
	}
	l, err := lab.Open(ctx, a.stage, line)
	if err != nil {
		return err
	}
	defer l.Close()
	l.Timeline.Tell = func(_ time.Duration, e lab.Event) {
		if !strings.Contains(e.Text, "QEMU says") {
			line("%s", e.Text)
		}
	}
	line("building baton and installing it in n1 and n2")
	if err := l.Install(ctx); err != nil {
		return err
	}
	s := &show{Lab: l, line: line}
	if err := a.play(ctx, s); err != nil {
		if ctx.Err() == nil {
			fmt.Println(l.Dump(context.WithoutCancel(ctx)))
		}
		return err
	}
	s.summary()
	return nil
}
