package token

// advice holds what an administrator can do about an AADSTS number. Entra: reference-error-codes. Programs branch on the
// OAuth error, never on these.
var advice = map[int]string{
	90002:   "The tenant does not exist: check the directory id or domain name, and that the cloud is the right one.",
	700016:  "The app is not known in this tenant: check client_id and tenant, and that an administrator has consented to the app there.",
	7000215: "The client secret is wrong: use the secret's value, not its id, from the app registration's Certificates & secrets page.",
	7000222: "The client secret has expired: create a new one on the app registration's Certificates & secrets page and configure it.",
	7000216: "No client secret was sent: set client_secret or client_secret_file.",
	7000218: "No secret was sent: set client_secret or client_secret_file; for device_code, set Allow public client flows to Yes on the app's Authentication page.",
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
	700023:  "The assertion names another audience: check login_url and tenant.",
	50027:   "The assertion is malformed: check client_id, and that the certificate or token file is the right one.",
	700082:  "The stored sign-in has expired for lack of use: let the user sign in again with postern signin.",
	700084:  "The stored sign-in has expired: let the user sign in again with postern signin.",
	70008:   "The stored sign-in has expired: let the user sign in again with postern signin.",
	70000:   "The stored sign-in is no longer valid: let the user sign in again with postern signin.",
	50173:   "The stored sign-in was revoked, perhaps by a new password: let the user sign in again with postern signin.",
	50076:   "Microsoft wants a second factor: let the user sign in again with postern signin.",
	50079:   "Microsoft wants a second factor to be registered: let the user sign in again with postern signin.",
	65001:   "Consent is missing: let an administrator grant the app's permissions under API permissions.",
	50105:   "The user is not assigned to the app: assign him under Enterprise applications, Users and groups.",
	50020:   "The user belongs to another tenant: sign in with an account of this one.",
	50034:   "The user does not exist in this tenant: check the address.",
	50053:   "The user's account is locked: wait, or unlock it in Entra.",
	50055:   "The user's password has expired: set a new one, then sign in again with postern signin.",
	50057:   "The user's account is disabled: enable it in Entra.",
	53003:   "A Conditional Access policy blocks the app: allow this machine's address, or exclude the app from the policy.",
}

// byOAuth is for numbers that the table lacks.
var byOAuth = map[string]string{
	"invalid_client":          "The app's credential was refused: check client_id and client_secret.",
	"unauthorized_client":     "The app may not sign in to this tenant: check client_id, tenant and the app's consent.",
	"invalid_grant":           "The stored sign-in was refused: let the user sign in again with postern signin.",
	"bad_request_102":         "The metadata service was asked wrongly: check login_url.",
	"invalid_scope":           "The scope was refused: check that cloud fits the tenant.",
	"invalid_resource":        "Microsoft Graph is not known in this tenant: check tenant and cloud.",
	"invalid_request":         "The sign-in request was refused: check tenant, client_id and cloud.",
	"temporarily_unavailable": "Microsoft's sign-in service is busy: nothing to do but wait.",
}

// Advice returns a sentence that tells an administrator what to do about an AADSTS number, empty if we know none.
func Advice(code int) string { return advice[code] }
