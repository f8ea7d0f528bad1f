package token

// advice holds what an administrator can do about an AADSTS number. Entra: reference-error-codes. Programs branch on the
// OAuth error, never on these.
var advice = map[int]string{
	90002:   "The tenant does not exist: check the directory id or domain name, and that the cloud is the right one.",
	700016:  "The app is not known in this tenant: check client_id and tenant, and that an administrator has consented to the app there.",
	7000215: "The client secret is wrong: use the secret's value, not its id, from the app registration's Certificates & secrets page.",
	7000222: "The client secret has expired: create a new one on the app registration's Certificates & secrets page and configure it.",
	7000216: "No client secret was sent: set client_secret or client_secret_file.",
	7000218: "No client secret was sent: set client_secret or client_secret_file.",
	7000112: "The app is disabled in this tenant: enable sign-in for its enterprise application.",
	70011:   "The scope was refused: check that cloud fits the tenant.",
	1002012: "The scope was refused: check that cloud fits the tenant.",
	900144:  "A field was missing from the sign-in request: check that tenant, client_id and client_secret are all set.",
	9001023: "The tenant must be named: use the directory id or a domain name instead of common, organizations or consumers.",
	500011:  "Microsoft Graph is not known in this tenant: check tenant and cloud.",
	650052:  "The tenant has no subscription for Microsoft Graph: check tenant and licences.",
	700027:  "The assertion's key or signature was refused: check that the certificate is the one uploaded to the app registration.",
	50012:   "The assertion was refused: check that the certificate is the one uploaded to the app registration.",
	50013:   "The assertion was refused: check that the certificate is the one uploaded to the app registration.",
	700024:  "The assertion's times were refused: check this machine's clock.",
	700211:  "The federated token's issuer matches no federated credential of the app registration.",
	700212:  "The federated token's audience matches no federated credential of the app registration.",
	700213:  "The federated token's subject matches no federated credential of the app registration.",
	90038:   "The tenant belongs to another national cloud: set cloud to usgov, usgov-dod or china.",
	900382:  "The tenant belongs to another national cloud: set cloud to usgov, usgov-dod or china.",
	900432:  "The tenant belongs to another national cloud: set cloud to usgov, usgov-dod or china.",
	90055:   "Microsoft's sign-in service is throttling: nothing to do but wait.",
	90033:   "Microsoft's sign-in service is unavailable for a moment: nothing to do but wait.",
	53003:   "A Conditional Access policy blocks the app: allow this machine's address, or exclude the app from the policy.",
}

// byOAuth is for numbers that the table lacks.
var byOAuth = map[string]string{
	"invalid_client":          "The app's credential was refused: check client_id and client_secret.",
	"unauthorized_client":     "The app may not sign in to this tenant: check client_id, tenant and the app's consent.",
	"invalid_scope":           "The scope was refused: check that cloud fits the tenant.",
	"invalid_resource":        "Microsoft Graph is not known in this tenant: check tenant and cloud.",
	"invalid_request":         "The sign-in request was refused: check tenant, client_id and cloud.",
	"temporarily_unavailable": "Microsoft's sign-in service is busy: nothing to do but wait.",
}

// Advice returns a sentence that tells an administrator what to do about an AADSTS number, empty if we know none.
func Advice(code int) string { return advice[code] }
