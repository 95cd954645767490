// Labimage builds the lab's disk image ahead of the first test, or says where
// it is. It prints the image's directory.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"

	"baton/tests/lab"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	img, err := lab.BuildImage(ctx, func(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) })
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println(img)
}
