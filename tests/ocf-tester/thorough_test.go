//go:build real

package ocftester

const thorough = true
