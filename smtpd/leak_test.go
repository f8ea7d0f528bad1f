package smtpd

import (
	"testing"

	"go.uber.org/goleak"
)

// TestMain fails the tests when goroutines are left behind.
func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }
