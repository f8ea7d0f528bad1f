package graphsim

import (
	"crypto/x509"
	"fmt"
	"slices"
	"strings"
	"time"
)

// UserSpec describes a user and the mailbox.
type UserSpec struct {
	ID          string // directory id; made when empty
	UPN         string // user principal name, here also the primary address
	Aliases     []string
	DisplayName string
	SendAs      []string // addresses of others this mailbox may send as
	FullAccess  []string // mailboxes of others the user may open
	NoMailbox   bool     // in the directory only
	Language    string   // of folder names: "en" (default), "de", "fr"
}

// MessageSpec says how a seeded message lies in its folder.
type MessageSpec struct {
	Received   time.Time // default now
	IsRead     bool
	Flagged    bool
	IsDraft    bool
	Categories []string
	// NoTransportHeaders leaves 0x007D out, as for sent mail. Drafts never have it.
	NoTransportHeaders bool
}

// FederatedIssuer is a federated credential of an app.
type FederatedIssuer struct{ Issuer, Subject, Audience string }

// AddTenant makes a directory, known by its id and its domains.
func (s *Sim) AddTenant(id string, domains ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tenants = append(s.tenants, &tenant{id: id, domains: domains, apps: map[string]*app{}, users: map[string]*mailbox{}})
}

// AddApp registers an app with a secret and roles such as Mail.ReadWrite and Mail.Send; "" means no secret.
// Called again for the same app it adds the secret and sets the roles. It panics when the tenant does not exist.
func (s *Sim) AddApp(tenantID, clientID, secret string, roles ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	must(s.addAppLocked(tenantID, clientID, secret, roles))
}

func (s *Sim) addAppLocked(tenantID, clientID, secret string, roles []string) error {
	t := s.findTenant(tenantID)
	if t == nil {
		return fmt.Errorf("add app: tenant %q: %w", tenantID, errGone)
	}
	a := t.apps[strings.ToLower(clientID)]
	if a == nil {
		a = &app{tenant: t, clientID: clientID, grants: map[string][]string{}, blocked: map[string]bool{}}
		t.apps[strings.ToLower(clientID)] = a
	}
	if secret != "" {
		a.secrets = append(a.secrets, appSecret{value: secret})
	}
	a.roles = slices.Clone(roles)
	return nil
}

// AddExpiredSecret gives an app a secret that has expired: AADSTS7000222.
func (s *Sim) AddExpiredSecret(tenantID, clientID, secret string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	a := s.mustApp(tenantID, clientID)
	a.secrets = append(a.secrets, appSecret{secret, s.now().Add(-time.Hour)})
}

// AddCertificate lets an app sign in with assertions signed by the certificate's key.
func (s *Sim) AddCertificate(tenantID, clientID string, cert *x509.Certificate) {
	s.mu.Lock()
	defer s.mu.Unlock()
	a := s.mustApp(tenantID, clientID)
	a.certs = append(a.certs, newAppCert(cert))
}

// AddFederated lets an app sign in with an outside issuer's token, whose signature is not checked here.
func (s *Sim) AddFederated(tenantID, clientID string, issuer FederatedIssuer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	a := s.mustApp(tenantID, clientID)
	a.issuers = append(a.issuers, issuer)
}

// GrantRBAC gives an app roles in one mailbox by RBAC for Applications, which its tokens do not show.
func (s *Sim) GrantRBAC(tenantID, clientID, user string, roles ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	a := s.mustApp(tenantID, clientID)
	a.grants[strings.ToLower(s.mustBox(user).user.ID)] = roles
}

// BlockMailbox puts an application access policy between an app and a mailbox: "Access to OData is disabled."
func (s *Sim) BlockMailbox(tenantID, clientID, user string, blocked bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mustApp(tenantID, clientID).blocked[strings.ToLower(s.mustBox(user).user.ID)] = blocked
}

// SetOverQuota fills a mailbox: writing and delta are refused with ErrorQuotaExceeded, lists are not.
func (s *Sim) SetOverQuota(user string, over bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mustBox(user).overQuota = over
}

// AddUser makes a user with a mailbox and its default folders, and returns the user's id.
// It panics when the tenant does not exist or the name is taken.
func (s *Sim) AddUser(tenantID string, spec UserSpec) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	id, err := s.addUserLocked(tenantID, spec)
	must(err)
	return id
}

func (s *Sim) addUserLocked(tenantID string, spec UserSpec) (string, error) {
	t := s.findTenant(tenantID)
	if t == nil {
		return "", fmt.Errorf("add user: tenant %q: %w", tenantID, errGone)
	}
	if spec.ID == "" {
		spec.ID = newGUID()
	}
	if spec.DisplayName == "" {
		spec.DisplayName, _, _ = strings.Cut(spec.UPN, "@")
	}
	b := &mailbox{
		sim: s, tenant: t, user: spec, folders: map[uint32]*folder{}, wellKnown: map[string]*folder{},
		messages: map[uint64]*message{}, byMsgID: map[string][]*message{},
	}
	copy(b.guid[:], hash16(spec.ID+string(s.key[:])))
	keys := append([]string{spec.ID, spec.UPN}, spec.Aliases...)
	for _, k := range keys {
		if k == "" || t.users[strings.ToLower(k)] != nil {
			return "", fmt.Errorf("add user: name %q is empty or taken", k)
		}
	}
	for _, k := range keys {
		t.users[strings.ToLower(k)] = b
	}
	s.boxes[strings.ToLower(spec.ID)] = b
	b.createDefaultsLocked()
	return spec.ID, nil
}

// AddFolder makes a folder below parent, a well-known name, an id or a path of display names such as "Inbox/Projects";
// "" means the top. It returns the id. It panics when the user or the parent does not exist.
func (s *Sim) AddFolder(user, parent, name string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	f, err := s.addFolderLocked(user, parent, name)
	must(err)
	return f.id()
}

func (s *Sim) addFolderLocked(user, parent, name string) (*folder, error) {
	at, err := s.seedFolder(user, parent)
	if err != nil {
		return nil, fmt.Errorf("add folder: %w", err)
	}
	return at.box.newFolderLocked(at, name), nil
}

// AddSearchFolder makes a mailSearchFolder below the top, which takes its name.
func (s *Sim) AddSearchFolder(user, name string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	f, err := s.addFolderLocked(user, "", name)
	must(err)
	f.search = true
	return f.id()
}

// AddMessage puts a message into a folder (as AddFolder names them) and returns its immutable id.
// The bytes must not change afterwards. It panics when the user or the folder does not exist.
func (s *Sim) AddMessage(user, folder string, mime []byte, spec MessageSpec) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	m, err := s.addMessageLocked(user, folder, mime, spec)
	must(err)
	return m.id(true)
}

func (s *Sim) addMessageLocked(user, name string, mime []byte, spec MessageSpec) (*message, error) {
	f, err := s.seedFolder(user, name)
	if err != nil {
		return nil, fmt.Errorf("add message: %w", err)
	}
	now := s.now()
	if spec.Received.IsZero() {
		spec.Received = now
	}
	m := messageFromMIME(mime, now.Unix())
	m.received = spec.Received.Unix()
	m.sent = unixOr(m.sent, spec.Received)
	m.setBit(bitRead, spec.IsRead)
	m.setBit(bitDraft, spec.IsDraft)
	m.flag = uint8(boolInt(spec.Flagged))
	m.categories = slices.Clone(spec.Categories)
	if !spec.NoTransportHeaders && !spec.IsDraft && f.known != "sentitems" {
		m.body.transport = headerText(m.body.root)
	}
	f.addLocked(m)
	return m, nil
}

// seedFolder finds a folder for seeding and inspection.
func (s *Sim) seedFolder(user, name string) (*folder, error) {
	b := s.findBox(user)
	if b == nil {
		return nil, fmt.Errorf("user %q: %w", user, errGone)
	}
	if name == "" {
		return b.root, nil
	}
	if f, err := b.folderByID(name); err == nil {
		return f, nil
	}
	at := b.root
	for _, piece := range strings.Split(name, "/") {
		var next *folder
		for _, ch := range at.children {
			if ch.name == piece || at == b.root && strings.EqualFold(ch.known, piece) {
				next = ch
				break
			}
		}
		if next == nil {
			return nil, fmt.Errorf("folder %q: %w", name, errGone)
		}
		at = next
	}
	return at, nil
}

// findBox finds a mailbox by id, UPN or alias in any tenant.
func (s *Sim) findBox(user string) *mailbox {
	for _, t := range s.tenants {
		if b := t.users[strings.ToLower(user)]; b != nil {
			return b
		}
	}
	return nil
}

// must turns a mistake in a test's own set-up into a panic; nothing from outside comes here.
func must(err error) {
	if err != nil {
		panic("graphsim: " + err.Error())
	}
}

func (s *Sim) mustApp(tenantID, clientID string) *app {
	if t := s.findTenant(tenantID); t != nil {
		if a := t.apps[strings.ToLower(clientID)]; a != nil {
			return a
		}
	}
	panic("graphsim: no app " + clientID + " in tenant " + tenantID)
}

func (s *Sim) mustBox(user string) *mailbox {
	b := s.findBox(user)
	if b == nil {
		panic("graphsim: no user " + user)
	}
	return b
}

func (s *Sim) mustFolder(user, name string) *folder {
	f, err := s.seedFolder(user, name)
	must(err)
	return f
}
