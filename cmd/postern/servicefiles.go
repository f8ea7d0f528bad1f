package main

import (
	"encoding/xml"
	"fmt"
	"strings"

	packaged "postern/deploy/systemd"
)

// unit returns the unit of systemd for the service: the one of the packages, with this program, configuration and state.
func (s *service) unit() string {
	text := strings.NewReplacer(
		"/usr/bin/postern serve --config /etc/postern/postern.yaml", quoteUnit(s.program)+" serve --config "+quoteUnit(s.config),
		"ConditionPathExists=/etc/postern/postern.yaml", "ConditionPathExists="+strings.ReplaceAll(s.config, "%", "%%"),
	).Replace(packaged.Unit)
	if s.state != "" && s.state != unitState {
		text = strings.Replace(text, "ProtectSystem=strict\n", "ProtectSystem=strict\nReadWritePaths="+quoteUnit(s.state)+"\n", 1)
	}
	return text
}

// unitState is the folder that the unit makes and lets the service write to.
const unitState = "/var/lib/postern"

// quoteUnit writes a path into a unit, see systemd.syntax(7) and systemd.unit(5).
func quoteUnit(path string) string {
	path = strings.NewReplacer(`\`, `\\`, `"`, `\"`, "%", "%%", "$", "$$").Replace(path)
	if strings.ContainsAny(path, " \t'\"\\;") {
		return `"` + path + `"`
	}
	return path
}

// launchdLabel is how launchd knows the service.
const launchdLabel = "postern"

// plist returns launchd's description of the service, see launchd.plist(5).
func (s *service) plist() string {
	esc := func(text string) string {
		var b strings.Builder
		_ = xml.EscapeText(&b, []byte(text)) // a strings.Builder takes all
		return b.String()
	}
	return fmt.Sprintf(`<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE plist PUBLIC "-//Apple//DTD PLIST 1.0//EN" "http://www.apple.com/DTDs/PropertyList-1.0.dtd">
<plist version="1.0">
<dict>
	<key>Label</key><string>%s</string>
	<key>ProgramArguments</key>
	<array>
		<string>%s</string>
		<string>serve</string>
		<string>--config</string>
		<string>%s</string>
	</array>
	<key>RunAtLoad</key><true/>
	<key>KeepAlive</key><dict><key>SuccessfulExit</key><false/></dict>
	<key>ThrottleInterval</key><integer>10</integer>
	<key>ExitTimeOut</key><integer>45</integer>
	<key>ProcessType</key><string>Background</string>
	<key>Umask</key><integer>63</integer>
	<key>SoftResourceLimits</key><dict><key>NumberOfFiles</key><integer>65536</integer></dict>
	<key>HardResourceLimits</key><dict><key>NumberOfFiles</key><integer>65536</integer></dict>
	<key>StandardOutPath</key><string>%s</string>
	<key>StandardErrorPath</key><string>%[4]s</string>
</dict>
</plist>
`, launchdLabel, esc(s.program), esc(s.config), launchdLog)
}

// launchdLog is where a daemon's lines go; newsyslog keeps it small.
const launchdLog = "/var/log/postern.log"
