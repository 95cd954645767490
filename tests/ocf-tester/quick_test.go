//go:build !real

package ocftester

// thorough tries every value on every parameter. Without it each parameter meets some of the
// values, in turn, so that the quick tests stay quick.
const thorough = false
