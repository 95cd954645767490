package lab

// useKVM tells whether machines run under KVM here.
func useKVM() bool { return false }
