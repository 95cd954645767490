package main

import (
	"context"
	"flag"
	"os"
	"time"
)

// listDir reads a directory's names anew each time, as readdir(3) does: on a
// network file system a directory handle that the server lost shows as ESTALE.
func listDir(f *flag.FlagSet) func(context.Context, *logger) error {
	dir := f.String("dir", "", "directory")
	every := f.Duration("every", 100*time.Millisecond, "pause between two listings")
	return func(ctx context.Context, out *logger) error {
		// The process sits in the directory, as a user's shell does.
		if err := os.Chdir(*dir); err != nil {
			return err
		}
		paced(ctx, *every, func(seq uint64) {
			names, err := listOnce(".")
			out.result(seq, err, "%d names", names)
		})
		return nil
	}
}

func listOnce(dir string) (int, error) {
	d, err := os.Open(dir)
	if err != nil {
		return 0, err
	}
	defer d.Close()
	names, err := d.Readdirnames(-1)
	return len(names), err
}
