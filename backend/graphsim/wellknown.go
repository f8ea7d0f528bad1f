package graphsim

import "encoding/base64"

// wellKnownNames are the names that stand for a folder id. Graph: mailFolder, message-move. Not every mailbox has each.
var wellKnownNames = map[string]bool{
	"archive": true, "clutter": true, "conflicts": true, "conversationhistory": true, "deleteditems": true,
	"drafts": true, "inbox": true, "junkemail": true, "localfailures": true, "msgfolderroot": true, "outbox": true,
	"recoverableitemsdeletions": true, "scheduled": true, "searchfolders": true, "sentitems": true,
	"serverfailures": true, "syncissues": true,
	// Not in the published list, but known: where purged items go before they are gone.
	"recoverableitemspurges": true,
}

// defaultFolder is a folder every new mailbox has.
type defaultFolder struct {
	known, parent string
	hidden        bool
	names         map[string]string // display name by language; "en" is always there
}

// defaultFolders in the order of creation. Display names are in the mailbox's language, so they are no way to find a role.
var defaultFolders = []defaultFolder{
	{known: "msgfolderroot", names: map[string]string{"en": "Top of Information Store", "de": "Oberste Ebene des Informationsspeichers", "fr": "Racine de la banque d'informations"}},
	{known: "archive", parent: "msgfolderroot", names: map[string]string{"en": "Archive", "de": "Archiv", "fr": "Archive"}},
	{known: "conversationhistory", parent: "msgfolderroot", names: map[string]string{"en": "Conversation History", "de": "Aufgezeichnete Unterhaltungen", "fr": "Historique des conversations"}},
	{known: "deleteditems", parent: "msgfolderroot", names: map[string]string{"en": "Deleted Items", "de": "Gelöschte Elemente", "fr": "Éléments supprimés"}},
	{known: "drafts", parent: "msgfolderroot", names: map[string]string{"en": "Drafts", "de": "Entwürfe", "fr": "Brouillons"}},
	{known: "inbox", parent: "msgfolderroot", names: map[string]string{"en": "Inbox", "de": "Posteingang", "fr": "Boîte de réception"}},
	{known: "junkemail", parent: "msgfolderroot", names: map[string]string{"en": "Junk Email", "de": "Junk-E-Mail", "fr": "Courrier indésirable"}},
	{known: "outbox", parent: "msgfolderroot", names: map[string]string{"en": "Outbox", "de": "Postausgang", "fr": "Boîte d'envoi"}},
	{known: "sentitems", parent: "msgfolderroot", names: map[string]string{"en": "Sent Items", "de": "Gesendete Elemente", "fr": "Éléments envoyés"}},
	{known: "searchfolders", names: map[string]string{"en": "Finder", "de": "Finder", "fr": "Finder"}, hidden: true},
	{known: "recoverableitemsdeletions", names: map[string]string{"en": "Deletions"}, hidden: true},
	{known: "recoverableitemspurges", names: map[string]string{"en": "Purges"}, hidden: true},
	{known: "syncissues", parent: "msgfolderroot", hidden: true, names: map[string]string{"en": "Sync Issues", "de": "Synchronisierungsprobleme", "fr": "Problèmes de synchronisation"}},
	{known: "conflicts", parent: "syncissues", hidden: true, names: map[string]string{"en": "Conflicts", "de": "Konflikte", "fr": "Conflits"}},
	{known: "localfailures", parent: "syncissues", hidden: true, names: map[string]string{"en": "Local Failures", "de": "Lokale Fehler", "fr": "Échecs locaux"}},
	{known: "serverfailures", parent: "syncissues", hidden: true, names: map[string]string{"en": "Server Failures", "de": "Serverfehler", "fr": "Échecs serveur"}},
}

// createDefaultsLocked makes the folders of a new mailbox.
func (b *mailbox) createDefaultsLocked() {
	for _, d := range defaultFolders {
		name := d.names[b.user.Language]
		if name == "" {
			name = d.names["en"]
		}
		f := b.newFolderLocked(b.wellKnown[d.parent], name)
		f.known, f.hidden = d.known, d.hidden
		b.wellKnown[d.known] = f
		if d.known == "msgfolderroot" {
			b.root = f
		}
	}
}

// newFolderLocked makes a folder; a nil parent means outside the visible tree.
func (b *mailbox) newFolderLocked(parent *folder, name string) *folder {
	b.nextDir++
	f := &folder{box: b, num: b.nextDir, name: name, parent: parent, modified: b.sim.now().Unix()}
	b.folders[f.num] = f
	if parent != nil {
		parent.children = append(parent.children, f)
		parent.countedLocked()
	}
	b.treeLog = append(b.treeLog, folderChange{num: f.num})
	return f
}

func encodeKey(b []byte) string { return base64.StdEncoding.EncodeToString(b) }
