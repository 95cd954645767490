// Labtool runs inside the lab's machines: it loads a service, notes each
// acknowledged answer with its time, and checks afterwards that what was
// acknowledged is there. Each subcommand that runs until it is stopped writes
// the log described in package record to standard output, and ends at SIGTERM.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

// job is one subcommand: it registers its flags and returns what to run.
type job struct {
	help string
	make func(*flag.FlagSet) func(ctx context.Context, out *logger) error
}

func jobs() map[string]job {
	return map[string]job{
		"tcp":     {"ask -to HOST:PORT over a new TCP connection each time", tcpProbe},
		"hold":    {"keep one TCP connection to the echo server -to HOST:PORT and use it", holdTCP},
		"ping":    {"ICMP echo to -to ADDRESS", pingProbe},
		"echo":    {"TCP echo server on -listen [HOST]:PORT", echoServer},
		"write":   {"create, write and fsync a new file below -dir each time; log it when acknowledged", writeFiles},
		"append":  {"append to one open file -file, fsync, log each acknowledged record", appendRecords},
		"check":   {"verify that every record that -log acknowledged is below -dir or in -file", checkRecords},
		"list":    {"sit in -dir and read its names each time", listDir},
		"lock":    {"hold a lock on -file and write under it", holdLock},
		"trylock": {"try to lock -file once: exit 0 got it, 1 refused", tryLock},
		"open":    {"keep a file or device open (-file) until stopped", holdOpen},
	}
}

func main() {
	if len(os.Args) < 2 {
		usage()
	}
	j, ok := jobs()[os.Args[1]]
	if !ok {
		usage()
	}
	flags := flag.NewFlagSet(os.Args[1], flag.ExitOnError)
	run := j.make(flags)
	_ = flags.Parse(os.Args[2:]) // ExitOnError
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	out := newLogger(os.Stdout)
	err := run(ctx, out)
	// Without a last line a stall at the end of the log could not be seen.
	out.end()
	if err != nil {
		fmt.Fprintf(os.Stderr, "labtool %s: %v\n", os.Args[1], err)
		os.Exit(1)
	}
}

func usage() {
	fmt.Fprintln(os.Stderr, "usage: labtool COMMAND [flags]; labtool COMMAND -h lists the flags")
	for name, j := range jobs() {
		fmt.Fprintf(os.Stderr, "  %-8s %s\n", name, j.help)
	}
	os.Exit(2)
}
