package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// cmdlets are those that the scripts use, with the parameters used of each, compared with the pages named but where it says otherwise; what is
// used must be here, and what is here must be used.
var cmdlets = map[string][]string{
	// learn.microsoft.com/powershell/module/exchangepowershell/ (MicrosoftDocs/office-docs-powershell, 2026-08)
	"Connect-ExchangeOnline":       {"ShowBanner", "ExchangeEnvironmentName"},
	"Get-DistributionGroup":        {"Identity"},
	"New-DistributionGroup":        {"Name", "Type", "PrimarySmtpAddress"},
	"Get-ServicePrincipal":         {"Identity"},
	"New-ServicePrincipal":         {"AppId", "ObjectId", "DisplayName"},
	"Get-ManagementScope":          {"Identity"},
	"New-ManagementScope":          {"Name", "RecipientRestrictionFilter"},
	"Get-ManagementRoleAssignment": {"Identity"},
	"New-ManagementRoleAssignment": {"Name", "App", "Role", "CustomResourceScope"},
	// learn.microsoft.com/powershell/module/microsoft.graph.authentication/ and .../microsoft.graph.applications/: checked in part only,
	// against excerpts of these pages
	"Connect-MgGraph":                         {"NoWelcome", "Environment", "Scopes"},
	"Get-MgContext":                           {},
	"Get-MgApplication":                       {"Filter"},
	"New-MgApplication":                       {"DisplayName", "SignInAudience"},
	"Update-MgApplication":                    {"ApplicationId", "KeyCredentials", "RequiredResourceAccess"},
	"Add-MgApplicationPassword":               {"ApplicationId", "PasswordCredential"},
	"Get-MgServicePrincipal":                  {"Filter"},
	"New-MgServicePrincipal":                  {"AppId"},
	"New-MgServicePrincipalAppRoleAssignment": {"ServicePrincipalId", "PrincipalId", "ResourceId", "AppRoleId"},
	// learn.microsoft.com/powershell/module/az.accounts/ and .../az.resources/: likewise in part only
	"Connect-AzAccount":                         {"Environment"},
	"Get-AzContext":                             {},
	"Get-AzADApplication":                       {"DisplayName"},
	"New-AzADApplication":                       {"DisplayName", "SignInAudience"},
	"New-AzADAppCredential":                     {"ApplicationId", "CertValue", "StartDate", "EndDate"},
	"Add-AzADAppPermission":                     {"ApplicationId", "ApiId", "PermissionId", "Type"},
	"Get-AzADServicePrincipal":                  {"ApplicationId"},
	"New-AzADServicePrincipal":                  {"ApplicationId"},
	"New-AzADServicePrincipalAppRoleAssignment": {"ServicePrincipalId", "ResourceId", "AppRoleId"},
	// learn.microsoft.com/powershell/module/microsoft.powershell.core/ and .utility, .management: from general knowledge
	"ForEach-Object": {}, "Get-Date": {}, "Out-Null": {}, "Resolve-Path": {"Path"}, "Start-Sleep": {"Seconds"}, "Write-Host": {},
}

// Common parameters of all cmdlets, and operators.
var (
	commonParameters = []string{"ErrorAction"}
	operators        = []string{"not", "and", "or", "ge", "eq"}
)

// psCommand is one command of a script.
type psCommand struct {
	name       string
	parameters []string
	line       int
}

// readPowerShell finds the commands of a script, and errors of its brackets and quotes. It knows as much of the language as
// the scripts use: comments, both kinds of strings with $( ) in them, brackets, statement ends, and line continuation.
func readPowerShell(src string) (commands []psCommand, err error) {
	type level struct {
		close   byte
		command int // index of the command that goes on inside, -1 for none
	}
	stack := []level{{0, -1}}
	line := 1
	top := func() *level { return &stack[len(stack)-1] }
	word := regexp.MustCompile(`^[A-Za-z][A-Za-z0-9]*(-[A-Za-z0-9]+)?`)
	verb := regexp.MustCompile(`^[A-Z][A-Za-z]*-[A-Z][A-Za-z]*$`)
	for i := 0; i < len(src); {
		c := src[i]
		switch {
		case c == '\n':
			if i == 0 || src[i-1] != '`' {
				if top().close != ')' {
					top().command = -1 // within ( ) a statement goes on
				}
			}
			line++
			i++
		case c == '#':
			for i < len(src) && src[i] != '\n' {
				i++
			}
		case c == '`':
			i += 1
		case c == '\'':
			end := strings.IndexByte(src[i+1:], '\'')
			if end < 0 {
				return commands, fmt.Errorf("line %d: ' without an end", line)
			}
			line += strings.Count(src[i+1:i+1+end], "\n")
			i += end + 2
		case c == '"':
			j := i + 1
			for ; j < len(src) && src[j] != '"'; j++ {
				if src[j] == '`' {
					j++
				}
				if strings.HasPrefix(src[j:], "$(") {
					depth := 0
					start := j + 2
					for ; j < len(src); j++ {
						if src[j] == '(' {
							depth++
						} else if src[j] == ')' {
							if depth--; depth == 0 {
								break
							}
						}
					}
					inner, err := readPowerShell(src[start:j])
					if err != nil {
						return commands, fmt.Errorf("line %d: %w", line, err)
					}
					commands = append(commands, inner...)
				}
				if src[j] == '\n' {
					line++
				}
			}
			if j >= len(src) {
				return commands, fmt.Errorf("line %d: \" without an end", line)
			}
			i = j + 1
		case strings.IndexByte("({[", c) >= 0:
			stack = append(stack, level{map[byte]byte{'(': ')', '{': '}', '[': ']'}[c], -1})
			i++
		case strings.IndexByte(")}]", c) >= 0:
			if top().close != c {
				return commands, fmt.Errorf("line %d: %c closes nothing", line, c)
			}
			stack = stack[:len(stack)-1]
			i++
		case c == ';' || c == '|':
			top().command = -1
			i++
		case c == '$':
			for i++; i < len(src) && (src[i] == '_' || src[i] >= '0' && src[i] <= '9' || src[i]|32 >= 'a' && src[i]|32 <= 'z'); i++ {
			}
		case c == '.':
			for i++; i < len(src) && word.MatchString(src[i:]); {
				i += len(word.FindString(src[i:])) // a member, never a command
			}
		case c == '-' && i+1 < len(src) && word.MatchString(src[i+1:]):
			name := strings.SplitN(word.FindString(src[i+1:]), "-", 2)[0]
			i += 1 + len(name)
			if slices.Contains(operators, name) {
				continue
			}
			if top().command < 0 {
				return commands, fmt.Errorf("line %d: -%s belongs to no command", line, name)
			}
			cmd := &commands[top().command]
			cmd.parameters = append(cmd.parameters, name)
		case word.MatchString(src[i:]):
			w := word.FindString(src[i:])
			i += len(w)
			if verb.MatchString(w) && top().command < 0 {
				commands = append(commands, psCommand{name: w, line: line})
				top().command = len(commands) - 1
			}
		default:
			i++
		}
	}
	if len(stack) != 1 {
		return commands, fmt.Errorf("a bracket is not closed: %c is missing", top().close)
	}
	return commands, nil
}

// Neither PowerShell nor a tenant is at hand where tests run; so the scripts are at least of sound shape, and use only
// what Microsoft's pages have.
func TestPowerShellScripts(t *testing.T) {
	used := make(map[string]map[string]bool)
	for _, kind := range []string{"powershell", "msgraph", "az"} {
		for _, o := range []scriptOptions{{kind: kind}, {kind: kind, certificate: "app.pem"}, {kind: kind, clientID: sampleClientID, cloud: "usgov-dod"}} {
			o.group = "mail@contoso.example"
			text, err := setupScript(o)
			if err != nil {
				t.Fatal(err)
			}
			if gap := regexp.MustCompile(`@[A-Z_]{4,}@`).FindString(text); gap != "" {
				t.Errorf("%s has the gap %s", kind, gap)
			}
			if kind == "az" { // its part for Exchange is PowerShell
				_, text, _ = strings.Cut(text, "<<'EXCHANGE'\n")
				text, _, _ = strings.Cut(text, "\nEXCHANGE\n")
			}
			commands, err := readPowerShell(text)
			if err != nil || len(commands) < 5 {
				t.Fatalf("%s: %d commands, %v", kind, len(commands), err)
			}
			for _, c := range commands {
				known, ok := cmdlets[c.name]
				if !ok {
					t.Errorf("%s: line %d: %s is not among the cmdlets that were looked up", kind, c.line, c.name)
				}
				if used[c.name] == nil {
					used[c.name] = make(map[string]bool)
				}
				for _, p := range c.parameters {
					used[c.name][p] = true
					if !slices.Contains(known, p) && !slices.Contains(commonParameters, p) {
						t.Errorf("%s: line %d: %s -%s is not among the parameters that were looked up", kind, c.line, c.name, p)
					}
				}
			}
		}
	}
	for name, parameters := range cmdlets {
		if used[name] == nil {
			t.Errorf("%s is looked up, but not used", name)
		}
		for _, p := range parameters {
			if !used[name][p] {
				t.Errorf("%s -%s is looked up, but not used", name, p)
			}
		}
	}
}

func TestReadPowerShell(t *testing.T) {
	for src, want := range map[string]string{
		"Get-Date": "[{Get-Date [] 1}]",
		"$A = (Get-X -Id $B -ErrorAction Stop).Id":                                "[{Get-X [Id ErrorAction] 1}]",
		"New-X -A (Get-Y -B 'it''s').C `\n  -D \"$(Get-Z -E 1)\" | Out-Null # -F": "[{New-X [A D] 1} {Get-Y [B] 1} {Get-Z [E] 1} {Out-Null [] 2}]",
		"if (-not (Get-X -I $a)) { New-X -N 'a' }":                                "[{Get-X [I] 1} {New-X [N] 1}]",
	} {
		got, err := readPowerShell(src)
		if err != nil || fmt.Sprint(got) != want {
			t.Errorf("%s: %v, %v\nwant %s", src, got, err, want)
		}
	}
	for _, src := range []string{"if ($a) { Get-X", "Get-X)", "'abc", `"abc`, "-Id 1", "@{ A = (1 }"} {
		if _, err := readPowerShell(src); err == nil {
			t.Errorf("%s was taken", src)
		}
	}
}

// azDocumented are the commands of the Azure CLI that the script uses, with the options it may use.
// learn.microsoft.com/cli/azure/ (MicrosoftDocs/azure-docs-cli, 2026-08)
// The script's calls were also given to azure-cli 2.45.0, whose parser takes each, up to "az login" being needed (2026-11).
var azDocumented = map[string][]string{
	"cloud show":              {"--name"},
	"account show":            {"--name"},
	"ad app list":             {"--all", "--app-id", "--display-name", "--filter", "--identifier-uri", "--show-mine"},
	"ad app create":           {"--display-name", "--sign-in-audience"},
	"ad app credential reset": {"--id", "--append", "--cert", "--create-cert", "--display-name", "--end-date", "--keyvault", "--years"},
	"ad app permission add":   {"--id", "--api", "--api-permissions"},
	"ad sp create":            {"--id"},
	"ad sp show":              {"--id"},
	"rest":                    {"--method", "--url", "--uri", "--body", "--headers", "--resource", "--uri-parameters", "--output-file", "--skip-authorization-header"},
}

var azGlobal = []string{"--query", "--output", "--only-show-errors", "--debug", "--verbose", "--help"}

// The script for the Azure CLI runs, in each way, against a stand-in that takes what is documented and nothing else.
func TestAzScript(t *testing.T) {
	sh := need(t, "sh")
	const newApp, newSP = "11111111-1111-4111-8111-111111111111", "22222222-2222-4222-8222-222222222222"
	for _, tt := range []struct {
		name  string
		o     scriptOptions
		edit  func(string) string
		have  string // an application there already
		cloud string
		want  []string // lines of az
		out   []string
		fails string
	}{
		{name: "group", want: []string{
			"ad app create --display-name Postern --sign-in-audience AzureADMyOrg --query appId --output tsv", "ad sp create --id " + newApp + " --query id --output tsv",
			"ad app credential reset --id " + newApp + " --display-name Postern --years 1 --append --query password --output tsv"},
			out: []string{"$SpId  = '" + newSP + "'", "New-ManagementScope", "Client secret            the~secret", "Application (client) ID  " + newApp, "Directory (tenant) ID    33333333-"}},
		{name: "certificate", o: scriptOptions{certificate: "app.pem"}, want: []string{"ad app credential reset --id " + newApp + " --cert @app.pem --append --output none"},
			out: []string{"Application (client) ID  " + newApp}},
		{name: "whole tenant", edit: func(s string) string { return strings.Replace(s, "TENANT_WIDE=no", "TENANT_WIDE=yes", 1) }, want: []string{
			"ad app permission add --id " + newApp + " --api 00000003-0000-0000-c000-000000000000 --api-permissions e2a3a72e-5f79-4c64-b1b1-878b674786c9=Role --only-show-errors",
			`rest --method post --url https://graph.microsoft.com/v1.0/servicePrincipals/` + newSP + `/appRoleAssignments --body {"principalId": "` + newSP + `", "resourceId": "44444444-4444-4444-8444-444444444444", "appRoleId": "b633e1c5-b582-4048-a93e-9f11b44c7e96"} --output none`}},
		{name: "managed identity", o: scriptOptions{clientID: sampleClientID}, have: sampleClientID, want: []string{"ad sp show --id " + sampleClientID + " --query id --output tsv"},
			out: []string{"$AppId = '" + sampleClientID + "'"}},
		{name: "there already", have: newApp, fails: "There is an application called Postern already"},
		{name: "another cloud", o: scriptOptions{cloud: "usgov"}, fails: "az cloud set --name AzureUSGovernment"},
		{name: "government", o: scriptOptions{cloud: "usgov"}, cloud: "AzureUSGovernment", edit: func(s string) string { return strings.Replace(s, "TENANT_WIDE=no", "TENANT_WIDE=yes", 1) },
			want: []string{"--url https://graph.microsoft.us/v1.0/"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			tt.o.kind, tt.o.group = "az", "mail@contoso.example"
			text, err := setupScript(tt.o)
			if err != nil {
				t.Fatal(err)
			}
			if tt.edit != nil {
				text = tt.edit(text)
			}
			if tt.cloud == "" {
				tt.cloud = "AzureCloud"
			}
			log := filepath.Join(dir, "log")
			fake := "#!/bin/sh\nprintf '%s\\n' \"$*\" >>" + log + "\ncase \"$*\" in\n" +
				"'cloud show'*) echo " + tt.cloud + ";;\n'account show'*) echo 33333333-3333-4333-8333-333333333333;;\n" +
				"'ad app list'*) echo '" + tt.have + "';;\n'ad app create'*) echo " + newApp + ";;\n" +
				// The first try comes too early, as it does.
				"'ad sp create'*) [ -e " + log + ".2 ] || { : >" + log + ".2; exit 1; }; echo " + newSP + ";;\n" +
				"'ad sp show --id 00000003'*) echo 44444444-4444-4444-8444-444444444444;;\n'ad sp show'*) echo " + newSP + ";;\n" +
				"*' --cert '*) ;;\n'ad app credential reset'*) echo 'the~secret';;\n'ad app permission add'*|'rest '*) ;;\n*) exit 2;;\nesac\n"
			for name, content := range map[string]string{"az": fake, "sleep": "#!/bin/sh\n", "script.sh": text} {
				if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o700); err != nil {
					t.Fatal(err)
				}
			}
			if bash, err := exec.LookPath("bash"); err == nil {
				if out, err := exec.Command(bash, "-n", filepath.Join(dir, "script.sh")).CombinedOutput(); err != nil {
					t.Fatalf("%v\n%s", err, out)
				}
			}
			cmd := exec.Command(sh, "script.sh")
			cmd.Dir, cmd.Env = dir, append(os.Environ(), "PATH="+dir+":"+os.Getenv("PATH"))
			out, err := cmd.CombinedOutput()
			if tt.fails != "" {
				if err == nil || !strings.Contains(string(out), tt.fails) {
					t.Errorf("%v\n%s", err, out)
				}
				return
			}
			if err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			for _, want := range tt.out {
				if !strings.Contains(string(out), want) {
					t.Errorf("it does not print %s:\n%s", want, out)
				}
			}
			calls, err := os.ReadFile(log)
			if err != nil {
				t.Fatal(err)
			}
			for _, want := range tt.want {
				if !strings.Contains(string(calls), want) {
					t.Errorf("az was not called with %s:\n%s", want, calls)
				}
			}
			for call := range strings.Lines(string(calls)) {
				checkAz(t, strings.TrimSpace(call))
			}
		})
	}
}

// checkAz makes sure that a call has only documented options.
func checkAz(t *testing.T, call string) {
	t.Helper()
	name, options, _ := strings.Cut(call, " --")
	known, ok := azDocumented[name]
	if !ok {
		t.Errorf("az %s is not among the commands that were looked up", name)
		return
	}
	for _, o := range regexp.MustCompile(`(?:^| )(--[a-z-]+)`).FindAllStringSubmatch(" --"+options, -1) {
		if !slices.Contains(known, o[1]) && !slices.Contains(azGlobal, o[1]) {
			t.Errorf("az %s has no option %s", name, o[1])
		}
	}
}
