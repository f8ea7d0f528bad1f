package graphsim

import (
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"
)

// adminCalls are the calls of the admin interface, by method and path. Bodies and answers are JSON objects, names in camel
// case; "mime" is the message as text, "mimeBase64" as base64. All are for tests that run the simulator as a process of its
// own; nothing about them is Graph's.
var adminCalls = map[string]func(s *Sim, r *http.Request, in *adminInput) (any, error){
	"GET health":         func(*Sim, *http.Request, *adminInput) (any, error) { return object{{"ok", true}}, nil },
	"POST tenants":       (*Sim).adminTenant,
	"POST apps":          (*Sim).adminApp,
	"POST users":         (*Sim).adminUser,
	"POST folders":       (*Sim).adminFolder,
	"GET folders":        (*Sim).adminFolders,
	"POST messages":      (*Sim).adminMessage,
	"GET messages":       (*Sim).adminMessages,
	"GET mime":           (*Sim).adminMIME,
	"POST synthetic":     (*Sim).adminSynthetic,
	"POST deliver":       (*Sim).adminDeliver,
	"POST change":        (*Sim).adminChange,
	"POST rename-folder": (*Sim).adminRename,
	"POST delete-folder": (*Sim).adminDeleteFolder,
	"POST reset-delta":   (*Sim).adminResetDelta,
	"POST quota":         (*Sim).adminQuota,
	"POST block":         (*Sim).adminBlock,
	"POST clock": func(s *Sim, _ *http.Request, in *adminInput) (any, error) {
		s.SetClock(time.Duration(in.Seconds) * time.Second)
		return nil, nil
	},
	"POST device":       (*Sim).adminDevice,
	"POST certificate":  (*Sim).adminCertificate,
	"POST federated":    (*Sim).adminFederated,
	"POST identity":     (*Sim).adminIdentity,
	"POST rbac":         (*Sim).adminRBAC,
	"POST revoke":       func(s *Sim, _ *http.Request, _ *adminInput) (any, error) { s.RevokeTokens(); return nil, nil },
	"GET deliveries":    func(s *Sim, _ *http.Request, _ *adminInput) (any, error) { return list(s.Delivered()), nil },
	"DELETE deliveries": func(s *Sim, _ *http.Request, _ *adminInput) (any, error) { s.ResetDeliveries(); return nil, nil },
	"GET requests":      func(s *Sim, _ *http.Request, _ *adminInput) (any, error) { return list(s.Requests()), nil },
	"GET counts":        func(s *Sim, _ *http.Request, _ *adminInput) (any, error) { return s.counts(), nil },
	"DELETE requests":   func(s *Sim, _ *http.Request, _ *adminInput) (any, error) { s.ResetRequests(); return nil, nil },
	"POST faults":       (*Sim).adminFault,
	"GET faults": func(s *Sim, _ *http.Request, _ *adminInput) (any, error) {
		return object{{"fired", s.FaultsFired()}}, nil
	},
	"DELETE faults": func(s *Sim, _ *http.Request, _ *adminInput) (any, error) { s.ClearFaults(); return nil, nil },
}

// adminInput is what the calls take; each uses some of it.
type adminInput struct {
	Tenant, ID     string
	Domains, Roles []string
	ClientID       string
	Secret         string
	ExpiredSecret  string
	SecretEnds     time.Time // when Secret ends; zero: never
	Public         bool
	Delegated      []string
	Certificate    string // PEM
	Issuer         string
	Subject        string
	Audience       string
	UserCode       string
	Seconds        int64

	UPN, DisplayName, Language string
	Aliases, SendAs            []string
	FullAccess                 []string
	NoMailbox                  bool

	User, Parent, Folder, Name string
	MIME, MIMEBase64           string
	Received                   time.Time
	IsRead, Flagged            *bool
	IsDraft                    bool
	NoTransportHeaders         bool
	Categories                 *[]string
	Extended                   map[string]string
	Count                      int
	Seed                       uint64
	Move                       string
	Delete, Purge              bool
	Over, Blocked              bool
}

// list keeps an empty list from being null.
func list[T any](l []T) any {
	if l == nil {
		l = []T{}
	}
	return struct {
		Value []T `json:"value"`
	}{l}
}

// serveAdmin answers /_sim/….
func (s *Sim) serveAdmin(w http.ResponseWriter, r *http.Request) {
	name := strings.Trim(strings.TrimPrefix(r.URL.Path, "/_sim/"), "/")
	run := adminCalls[r.Method+" "+name]
	if run == nil {
		http.NotFound(w, r)
		return
	}
	in := &adminInput{}
	if r.Method == http.MethodPost && name != "faults" {
		d := json.NewDecoder(http.MaxBytesReader(w, r.Body, 256<<20))
		d.DisallowUnknownFields()
		if err := d.Decode(in); err != nil && r.ContentLength != 0 {
			adminError(w, http.StatusBadRequest, err)
			return
		}
	}
	out, err := run(s, r, in)
	switch {
	case errors.Is(err, errGone):
		adminError(w, http.StatusNotFound, err)
	case err != nil:
		adminError(w, http.StatusBadRequest, err)
	case out == nil:
		w.WriteHeader(http.StatusNoContent)
	default:
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(out) // the client may be gone
	}
}

func adminError(w http.ResponseWriter, status int, err error) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]string{"error": err.Error()}) // the client may be gone
}

func (in *adminInput) mime() ([]byte, error) {
	if in.MIMEBase64 != "" {
		return base64.StdEncoding.DecodeString(in.MIMEBase64)
	}
	if in.MIME == "" {
		return nil, errors.New("mime or mimeBase64 is needed")
	}
	return []byte(in.MIME), nil
}

func (s *Sim) adminTenant(_ *http.Request, in *adminInput) (any, error) {
	if in.ID == "" {
		return nil, errors.New("id is needed")
	}
	s.AddTenant(in.ID, in.Domains...)
	return nil, nil
}

func (s *Sim) adminApp(_ *http.Request, in *adminInput) (any, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if in.ClientID == "" {
		return nil, errors.New("clientId is needed")
	}
	if err := s.addAppLocked(in.Tenant, in.ClientID, in.Secret, in.Roles); err != nil {
		return nil, err
	}
	a := s.mustApp(in.Tenant, in.ClientID)
	if in.Secret != "" && !in.SecretEnds.IsZero() {
		a.secrets[len(a.secrets)-1].expires = in.SecretEnds
	}
	if in.Public {
		a.public = true
	}
	if in.Delegated != nil {
		a.delegated = in.Delegated
	}
	if in.ExpiredSecret != "" {
		a.secrets = append(a.secrets, appSecret{in.ExpiredSecret, s.now().Add(-time.Hour)})
	}
	return nil, nil
}

func (s *Sim) adminUser(_ *http.Request, in *adminInput) (any, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	id, err := s.addUserLocked(in.Tenant, UserSpec{
		ID: in.ID, UPN: in.UPN, Aliases: in.Aliases, DisplayName: in.DisplayName, SendAs: in.SendAs, FullAccess: in.FullAccess, NoMailbox: in.NoMailbox, Language: in.Language,
	})
	return object{{"id", id}}, err
}

func (s *Sim) adminFolder(_ *http.Request, in *adminInput) (any, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f, err := s.addFolderLocked(in.User, in.Parent, in.Name)
	if err != nil {
		return nil, err
	}
	return object{{"id", f.id()}}, nil
}

// userExists keeps the calls below, which panic for tests in the same process, from doing so here.
func (s *Sim) userExists(user string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.findBox(user) == nil {
		return fmt.Errorf("user %q: %w", user, errGone)
	}
	return nil
}

func (s *Sim) adminFolders(r *http.Request, _ *adminInput) (any, error) {
	user := r.URL.Query().Get("user")
	if err := s.userExists(user); err != nil {
		return nil, err
	}
	return list(s.Folders(user)), nil
}

func (s *Sim) adminMessage(_ *http.Request, in *adminInput) (any, error) {
	raw, err := in.mime()
	if err != nil {
		return nil, err
	}
	spec := MessageSpec{
		Received: in.Received, IsRead: in.IsRead != nil && *in.IsRead, Flagged: in.Flagged != nil && *in.Flagged, IsDraft: in.IsDraft,
		NoTransportHeaders: in.NoTransportHeaders,
	}
	if in.Categories != nil {
		spec.Categories = *in.Categories
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	m, err := s.addMessageLocked(in.User, in.Folder, raw, spec)
	if err != nil {
		return nil, err
	}
	return object{{"id", m.id(true)}}, nil
}

func (s *Sim) adminMessages(r *http.Request, _ *adminInput) (any, error) {
	q := r.URL.Query()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.settleLocked()
	f, err := s.seedFolder(q.Get("user"), q.Get("folder"))
	if err != nil {
		return nil, err
	}
	return list(f.infos()), nil
}

func (s *Sim) adminMIME(r *http.Request, _ *adminInput) (any, error) {
	q := r.URL.Query()
	if err := s.userExists(q.Get("user")); err != nil {
		return nil, err
	}
	raw := s.MIME(q.Get("user"), q.Get("id"))
	if raw == nil {
		return nil, fmt.Errorf("message %q: %w", q.Get("id"), errGone)
	}
	return struct {
		MIMEBase64 []byte `json:"mimeBase64"`
	}{raw}, nil
}

func (s *Sim) adminSynthetic(_ *http.Request, in *adminInput) (any, error) {
	if in.Count < 1 || in.Count > 1_000_000 {
		return nil, errors.New("count must be between 1 and 1000000")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return nil, s.addSyntheticLocked(in.User, in.Folder, in.Count, Synthetic{Seed: in.Seed, Newest: in.Received})
}

func (s *Sim) adminDeliver(_ *http.Request, in *adminInput) (any, error) {
	raw, err := in.mime()
	if err == nil {
		err = s.userExists(in.User)
	}
	if err != nil {
		return nil, err
	}
	return object{{"id", s.DeliverMessage(in.User, raw)}}, nil
}

// adminChange is another client at work on one message.
func (s *Sim) adminChange(_ *http.Request, in *adminInput) (any, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.settleLocked()
	b := s.findBox(in.User)
	if b == nil {
		return nil, fmt.Errorf("user %q: %w", in.User, errGone)
	}
	m, apiErr := b.messageByID(in.ID)
	if apiErr != nil {
		return nil, fmt.Errorf("message: %w", errGone)
	}
	switch {
	case in.Purge:
		b.purgeLocked(m)
	case in.Delete:
		b.softDeleteLocked(m)
	case in.Move != "":
		to, err := s.seedFolder(in.User, in.Move)
		if err != nil {
			return nil, err
		}
		b.moveLocked(m, to, changeMoved)
	default:
		return nil, b.changeLocked(m, Change{IsRead: in.IsRead, Flagged: in.Flagged, Categories: in.Categories, Extended: in.Extended})
	}
	return nil, nil
}

// onFolder runs do for the folder the input names.
func (s *Sim) onFolder(in *adminInput, do func(f *folder) error) (any, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f, err := s.seedFolder(in.User, in.Folder)
	if err != nil {
		return nil, err
	}
	return nil, do(f)
}

func (s *Sim) adminRename(_ *http.Request, in *adminInput) (any, error) {
	return s.onFolder(in, func(f *folder) error {
		f.name = in.Name
		f.countedLocked()
		return nil
	})
}

func (s *Sim) adminDeleteFolder(_ *http.Request, in *adminInput) (any, error) {
	return s.onFolder(in, func(f *folder) error {
		if f.hasDefault() {
			return errors.New("a default folder cannot be deleted")
		}
		f.box.purgeFolderLocked(f)
		return nil
	})
}

func (s *Sim) adminResetDelta(_ *http.Request, in *adminInput) (any, error) {
	return s.onFolder(in, func(f *folder) error { f.generation++; return nil })
}

func (s *Sim) adminQuota(_ *http.Request, in *adminInput) (any, error) {
	if err := s.userExists(in.User); err != nil {
		return nil, err
	}
	s.SetOverQuota(in.User, in.Over)
	return nil, nil
}

func (s *Sim) adminBlock(_ *http.Request, in *adminInput) (any, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	t, b := s.findTenant(in.Tenant), s.findBox(in.User)
	if t == nil || b == nil || t.apps[strings.ToLower(in.ClientID)] == nil {
		return nil, fmt.Errorf("tenant, clientId or user: %w", errGone)
	}
	t.apps[strings.ToLower(in.ClientID)].blocked[strings.ToLower(b.user.ID)] = in.Blocked
	return nil, nil
}

// appExists keeps the calls below from panicking.
func (s *Sim) appExists(in *adminInput) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if t := s.findTenant(in.Tenant); t == nil || t.apps[strings.ToLower(in.ClientID)] == nil {
		return fmt.Errorf("tenant or clientId: %w", errGone)
	}
	return nil
}

func (s *Sim) adminDevice(_ *http.Request, in *adminInput) (any, error) {
	ok := false
	if in.User == "" {
		ok = s.DeclineDevice(in.UserCode)
	} else {
		ok = s.ApproveDevice(in.UserCode, in.User)
	}
	if !ok {
		return nil, fmt.Errorf("userCode or user: %w", errGone)
	}
	return nil, nil
}

func (s *Sim) adminCertificate(_ *http.Request, in *adminInput) (any, error) {
	if err := s.appExists(in); err != nil {
		return nil, err
	}
	block, _ := pem.Decode([]byte(in.Certificate))
	if block == nil {
		return nil, errors.New("certificate must be PEM")
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, err
	}
	s.AddCertificate(in.Tenant, in.ClientID, cert)
	return nil, nil
}

func (s *Sim) adminFederated(_ *http.Request, in *adminInput) (any, error) {
	if err := s.appExists(in); err != nil {
		return nil, err
	}
	s.AddFederated(in.Tenant, in.ClientID, FederatedIssuer{Issuer: in.Issuer, Subject: in.Subject, Audience: in.Audience})
	return nil, nil
}

func (s *Sim) adminIdentity(_ *http.Request, in *adminInput) (any, error) {
	if err := s.appExists(in); err != nil {
		return nil, err
	}
	s.AddManagedIdentity(in.Tenant, in.ClientID)
	return nil, nil
}

func (s *Sim) adminRBAC(_ *http.Request, in *adminInput) (any, error) {
	if err := errors.Join(s.appExists(in), s.userExists(in.User)); err != nil {
		return nil, err
	}
	s.GrantRBAC(in.Tenant, in.ClientID, in.User, in.Roles...)
	return nil, nil
}

func (s *Sim) adminFault(r *http.Request, _ *adminInput) (any, error) {
	var f Fault
	if err := json.NewDecoder(r.Body).Decode(&f); err != nil {
		return nil, err
	}
	return nil, s.Inject(f)
}

// counts sums the request log up by method, template and status: {"GET /v1.0/users/{u}/messages 200": 3}.
func (s *Sim) counts() map[string]int {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := map[string]int{}
	for _, r := range s.requests {
		out[fmt.Sprintf("%s %s %d", r.Method, r.Template, r.Status)]++
	}
	return out
}
