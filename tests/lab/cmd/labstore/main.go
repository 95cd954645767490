// Labstore runs inside the lab's machines: a record store whose every answer is a promise. `labstore
// serve` appends each line it is sent to a file on a mounted file system, fsyncs, and answers with
// the line; `labstore send` sends numbered lines to a service address, over and over to whoever has
// it, and notes each one that was acknowledged; `labstore check` compares what was acknowledged with
// what the file holds.
//
// It keeps neither the file nor the directory open between two records, so that it never is what
// keeps the file system from being unmounted for long.
package main

import (
	"bufio"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

func main() {
	if len(os.Args) < 2 {
		fail(errors.New("usage: labstore serve|send|check [flags]"))
	}
	flags := flag.NewFlagSet(os.Args[1], flag.ExitOnError)
	listen := flags.String("listen", ":7008", "serve: address")
	dir := flags.String("dir", "/mnt/data", "serve, check: the mounted directory")
	to := flags.String("to", "", "send: the service's address")
	every := flags.Duration("every", 50*time.Millisecond, "send: pause between two records")
	acks := flags.String("acks", "", "check: what send printed")
	_ = flags.Parse(os.Args[2:]) // ExitOnError
	switch os.Args[1] {
	case "serve":
		fail(serve(*listen, *dir))
	case "send":
		fail(send(*to, *every))
	case "check":
		fail(check(*acks, *dir))
	default:
		fail(fmt.Errorf("unknown command %q", os.Args[1]))
	}
}

func fail(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "labstore:", err)
		os.Exit(1)
	}
}

const file = "records"

func serve(listen, dir string) error {
	l, err := net.Listen("tcp", listen)
	if err != nil {
		return err
	}
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		go answer(c, dir)
	}
}

func answer(c net.Conn, dir string) {
	defer c.Close()
	in := bufio.NewScanner(c)
	for in.Scan() {
		if err := store(dir, in.Text()); err != nil {
			fmt.Fprintf(c, "error %v\n", err)
			return
		}
		fmt.Fprintf(c, "%s\n", in.Text())
	}
}

// store makes one record durable. Where dir is not a mount of its own, the device is elsewhere.
func store(dir, line string) error {
	var d, root syscall.Stat_t
	if err := syscall.Stat(dir, &d); err != nil {
		return err
	}
	if err := syscall.Stat("/", &root); err != nil {
		return err
	}
	if d.Dev == root.Dev {
		return errors.New("not mounted here")
	}
	f, err := os.OpenFile(filepath.Join(dir, file), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	// The mount may have gone between the look and the open: what was opened counts.
	var at syscall.Stat_t
	if err := syscall.Fstat(int(f.Fd()), &at); err != nil || at.Dev != d.Dev {
		f.Close()
		return errors.New("unmounted meanwhile")
	}
	_, err = f.WriteString(line + "\n")
	return errors.Join(err, f.Sync(), f.Close())
}

// send prints "ack N at RFC3339NANO" for each acknowledged record and "gap SECONDS" when the
// service answers again after more than a second.
func send(to string, every time.Duration) error {
	var c net.Conn
	var in *bufio.Scanner
	last := time.Now()
	const patience = 3 * time.Second
	for n := 1; ; n++ {
		line := fmt.Sprintf("record %d", n)
		for {
			err := func() (err error) {
				if c == nil {
					if c, err = net.DialTimeout("tcp", to, patience); err != nil {
						return err
					}
					in = bufio.NewScanner(c)
				}
				if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
					return err
				}
				if _, err := fmt.Fprintln(c, line); err != nil {
					return err
				}
				if !in.Scan() {
					return fmt.Errorf("connection lost: %w", errOr(in.Err()))
				}
				if in.Text() != line {
					return errors.New(in.Text())
				}
				return nil
			}()
			if err == nil {
				break
			}
			fmt.Printf("retry %d at %s: %v\n", n, time.Now().Format(time.RFC3339Nano), err)
			if c != nil {
				c.Close()
				c = nil
			}
			<-time.After(100 * time.Millisecond)
		}
		now := time.Now()
		if pause := now.Sub(last); pause > time.Second {
			fmt.Printf("gap %.1f before %d\n", pause.Seconds(), n)
		}
		last = now
		fmt.Printf("ack %d at %s\n", n, now.Format(time.RFC3339Nano))
		<-time.After(every)
	}
}

func errOr(err error) error {
	if err == nil {
		return net.ErrClosed
	}
	return err
}

// check prints how many records were acknowledged, and fails unless the file holds them all.
func check(acks, dir string) error {
	told, err := os.ReadFile(acks)
	if err != nil {
		return err
	}
	stored, err := os.ReadFile(filepath.Join(dir, file))
	if err != nil {
		return err
	}
	have := map[string]bool{}
	for line := range strings.Lines(string(stored)) {
		have[strings.TrimSpace(line)] = true
	}
	var missing []string
	count := 0
	for line := range strings.Lines(string(told)) {
		words := strings.Fields(line)
		if len(words) < 2 || words[0] != "ack" {
			continue
		}
		count++
		if !have["record "+words[1]] {
			missing = append(missing, words[1])
		}
	}
	if count == 0 {
		return errors.New("nothing was acknowledged")
	}
	if len(missing) > 0 {
		return fmt.Errorf("%d of %d acknowledged records are missing, the first is %s, the last %s", len(missing), count, missing[0], missing[len(missing)-1])
	}
	fmt.Printf("%d acknowledged records are all there\n", count)
	return nil
}
