package token

// Cloud names one of Microsoft's separate clouds. Tokens of one do not work in another. Graph: deployments.
type Cloud string

// The clouds. The empty Cloud is Global.
const (
	Global   Cloud = "global"    // worldwide, US GCC too
	USGov    Cloud = "usgov"     // US Government L4, GCC High
	USGovDoD Cloud = "usgov-dod" // US Government L5
	China    Cloud = "china"     // 21Vianet
)

type hosts struct{ login, graph string }

var clouds = map[Cloud]hosts{
	Global:   {"https://login.microsoftonline.com", "https://graph.microsoft.com"},
	USGov:    {"https://login.microsoftonline.us", "https://graph.microsoft.us"},
	USGovDoD: {"https://login.microsoftonline.us", "https://dod-graph.microsoft.us"},
	China:    {"https://login.partner.microsoftonline.cn", "https://microsoftgraph.chinacloudapi.cn"},
}

// Valid reports whether the cloud is one of those above, or empty.
func (c Cloud) Valid() bool {
	_, ok := clouds[c]
	return ok || c == ""
}

func (c Cloud) hosts() hosts {
	if h, ok := clouds[c]; ok {
		return h
	}
	return clouds[Global]
}
