package lab

import "context"

// Install placeholder
func (l *Lab) Install(ctx context.Context) error { return nil }
