// Package systemd holds the unit that packages install, for postern service install.
package systemd

import _ "embed"

// Unit is postern.service.
//
//go:embed postern.service
var Unit string
