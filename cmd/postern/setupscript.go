package main

import (
	"cmp"
	_ "embed"
	"fmt"
	"strings"

	"postern/backend/token"
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

// scriptOptions are what a script is made for.
type scriptOptions struct {
	kind        string // az, powershell or msgraph
	group       string // mail-enabled security group of the mailboxes
	certificate string // file to upload; "" for a secret
	clientID    string // of an application that is there already; "" for a new one
	cloud       string // "" for global
}

// scriptClouds are the names that Microsoft's tools have for its clouds. Azure knows none of the Department of Defense's own.
var scriptClouds = map[token.Cloud][3]string{ // Azure, Graph PowerShell, Exchange Online PowerShell
	token.Global:   {"AzureCloud", "Global", "O365Default"},
	token.USGov:    {"AzureUSGovernment", "USGov", "O365USGovGCCHigh"},
	token.USGovDoD: {"AzureUSGovernment", "USGovDoD", "O365USGovDoD"},
	token.China:    {"AzureChinaCloud", "China", "O365China"},
}

// setupScript returns the script for o.
func setupScript(o scriptOptions) (string, error) {
	text, ok := map[string]string{"az": scriptAz, "powershell": scriptPowerShell, "msgraph": scriptMsgraph}[o.kind]
	cloud := token.Cloud(cmp.Or(o.cloud, string(token.Global)))
	switch {
	case !ok:
		return "", fmt.Errorf("--print-script %q is unknown: write az, powershell or msgraph", o.kind)
	case strings.ContainsAny(o.group, "'\"`$\\\n ") || !strings.Contains(o.group, "@"):
		return "", fmt.Errorf("--group %q is no address", o.group)
	case strings.ContainsAny(o.certificate, "'\"`$\n"):
		return "", fmt.Errorf("--certificate %q: a name without quotes and dollar signs is wanted", o.certificate)
	case o.clientID != "" && !guid.MatchString(o.clientID):
		return "", fmt.Errorf("--client-id %q is no id: it looks like 2c9b0c44-0000-4000-8000-000000000000", o.clientID)
	case !cloud.Valid():
		return "", fmt.Errorf("--cloud %q is unknown: write global, usgov, usgov-dod or china", o.cloud)
	}
	names := scriptClouds[cloud]
	return strings.NewReplacer("@GROUP@", o.group, "@CERTIFICATE@", o.certificate, "@CLIENT_ID@", o.clientID, "@AZURE_CLOUD@", names[0],
		"@GRAPH_CLOUD@", names[1], "@EXCHANGE_CLOUD@", names[2], "@GRAPH_URL@", token.Credential{Cloud: cloud}.Graph()).Replace(
		strings.ReplaceAll(text, "@EXCHANGE@", strings.TrimRight(scriptExchange, "\n"))), nil
}
