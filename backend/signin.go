package backend

import "time"

// SignIn is how a credential's sign-in to Microsoft is doing.
type SignIn struct {
	Credential string
	By         string    // client_secret, certificate and so on
	Expires    time.Time // of the access token at hand, which is renewed by itself; zero without one
	Received   uint64    // tokens since the start
	Failed     uint64    // requests that failed since the start
	Problem    string    // of the last request, "" after a success
	Advice     string
	RetryAt    time.Time // no request before, while there is a Problem
	Ends       Expiry    // of the secret or certificate itself; At is zero when it does not end or is not known
}

// SignIns returns the state of each credential in use, by name.
func (b *Backend) SignIns() []SignIn {
	ends := make(map[string]Expiry)
	for _, e := range b.Expiries() {
		ends[e.Credential] = e
	}
	var out []SignIn
	for _, s := range b.tokens.States() {
		in := SignIn{Credential: s.Credential, By: string(s.Kind), Expires: s.Expires, Received: s.Received, Failed: s.Failed, Ends: ends[s.Credential]}
		if s.Err != nil {
			in.Problem, in.Advice, in.RetryAt = s.Err.Error(), advice(s.Err), s.RetryAt
		}
		out = append(out, in)
	}
	return out
}

// BodyUse returns how many bytes the kept message bodies take on the disk, and how many they may.
func (b *Backend) BodyUse() (used, budget int64) { return b.store.BodyUse() }
