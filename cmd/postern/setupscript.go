package main

import (
	_ "embed"
	"fmt"
	"strings"
)

// The scripts register the app and limit it to a group's mailboxes. Ids: Graph permissions-reference.
var (
	//go:embed scripts/az.sh
	scriptAz string
	//go:embed scripts/powershell.ps1
	scriptPowerShell string
	//go:embed scripts/msgraph.ps1
	scriptMsgraph string
	//go:embed scripts/exchange.ps1
	scriptExchange string
)

// setupScript returns the script of a kind, made for a group of mailboxes, and for a certificate if one is named.
func setupScript(kind, group, certificate string) (string, error) {
	text, ok := map[string]string{"az": scriptAz, "powershell": scriptPowerShell, "msgraph": scriptMsgraph}[kind]
	if !ok {
		return "", fmt.Errorf("--print-script %q is unknown: write az, powershell or msgraph", kind)
	}
	if strings.ContainsAny(group, "'\"`$\\\n") || !strings.Contains(group, "@") {
		return "", fmt.Errorf("--group %q is no address", group)
	}
	if strings.ContainsAny(certificate, "'\"`$\n") {
		return "", fmt.Errorf("--certificate %q: a name without quotes and dollar signs is wanted", certificate)
	}
	return strings.NewReplacer("@EXCHANGE@", strings.TrimRight(scriptExchange, "\n"), "@GROUP@", group, "@CERTIFICATE@", certificate).Replace(
		strings.ReplaceAll(text, "@EXCHANGE@", strings.TrimRight(scriptExchange, "\n"))), nil
}
