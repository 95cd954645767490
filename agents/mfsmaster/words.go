package main

import (
	"errors"
	"strings"

	"baton/agents/internal/command"
)

// accusations are what mfsmaster 2 to 4 says about metadata that it could not load, and 1.6 about its
// module that loads them. After whatever else a start or restore fails (no exports, a port in use, no
// memory, a full disk) it says nothing of the kind, and the metadata are sound.
var accusations = []string{
	"error loading metadata", "has wrong ending", "has wrong header", "file corrupted", "error applying changelogs",
	"init: file system manager failed",
}

// blamesMetadata says that a program of MooseFS failed because of the metadata that it was to load.
func blamesMetadata(err error) bool {
	var e *command.Error
	if !errors.As(err, &e) {
		return false
	}
	said := string(e.Stderr)
	for _, words := range accusations {
		if strings.Contains(said, words) {
			return true
		}
	}
	return false
}

// noise are the lines that mfsmaster 3.0 prints whatever happens, by their beginnings.
var noise = []string{
	"open files limit", "can't set open file limit", "open file limit", "working directory:", "lockfile created",
	"initializing ", "exports file has been loaded", "mfstopology", "loading ", "cleaning ", "metadata have been cleaned",
	"error occurred during initialization", "connecting files", "checking filesystem", "all inodes", "directory inodes",
	"file inodes", "chunks:", "progress:", "no charts", "stats file", "charts", "master <-> ", "main master", "can't set memory",
	"setting glibc", "monotonic", "dictionary", "metadata file has been loaded", "restore:", "init: metadata",
}

// cause is the first line that tells something: mfsmaster names the cause first and then, module
// by module, that it gives up.
func cause(said string) string {
	var last string
	for line := range strings.Lines(said) {
		line = strings.TrimSpace(line)
		if line == "" {
			continue
		}
		last = line
		if !startsWithAny(line, noise) || strings.Contains(line, "error: ") || strings.Contains(line, "can't find") {
			return line
		}
	}
	if last == "" {
		return "no words"
	}
	return last
}

func startsWithAny(s string, prefixes []string) bool {
	for _, p := range prefixes {
		if strings.HasPrefix(s, p) {
			return true
		}
	}
	return false
}
