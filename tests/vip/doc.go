// Package vip runs the built vip agent on real storage that hangs. All of it is under the build tag
// real: it mounts a file system of its own and needs root.
package vip
