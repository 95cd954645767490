package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// takeSlot waits until one of the host's LAB_SLOTS places (1 when unset, never
// more than it has processors) for a running lab is free: labs that share a
// processor spoil each other's timing.
func takeSlot(ctx context.Context, log func(string, ...any)) (release func(), err error) {
	slots := 1
	if text := os.Getenv("LAB_SLOTS"); text != "" {
		if slots, err = strconv.Atoi(text); err != nil || slots < 1 {
			return nil, fmt.Errorf("lab: LAB_SLOTS is %q; expected a number of labs from 1 up", text)
		}
	}
	slots = min(slots, runtime.NumCPU())
	if err := os.MkdirAll(Cache(), 0o755); err != nil {
		return nil, fmt.Errorf("lab: cache: %w", err)
	}
	began := time.Now()
	for told := false; ; {
		for i := range slots {
			f, err := os.OpenFile(filepath.Join(Cache(), fmt.Sprintf("slot-%d", i)), os.O_CREATE|os.O_RDWR, 0o666)
			if err != nil {
				return nil, fmt.Errorf("lab: slot: %w", err)
			}
			err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
			if err == nil {
				if told {
					log("the lab is free after %s", time.Since(began).Round(time.Second))
				}
				return func() { f.Close() }, nil
			}
			f.Close()
			if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
				return nil, fmt.Errorf("lab: slot: %w", err)
			}
		}
		if !told {
			told = true
			log("%d lab(s) run on this host already (LAB_SLOTS=%d); waiting for one to end", slots, slots)
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("lab: waiting for another lab to end: %w", ctx.Err())
		case <-time.After(300 * time.Millisecond):
		}
	}
}
