package graphsim

import (
	"encoding/base64"
	"encoding/binary"
	"hash/fnv"
)

// An id says what it names and carries a checksum, so none has to be stored: a message costs no memory for its two ids, and
// a mangled or case-folded id is told from one of a message that is gone. Clients must not look inside.
//
//	prefix 3 | mailbox 16 | kind 1 | number 8 | location 4 | attachment 4 | filler | checksum 8
//
// Classic ids are 152 characters and hold the location, a serial number that a move changes. Immutable ones are 72
// characters and hold 0 there. Folder ids are always in the long form, and constant. Graph: outlook-immutable-id.
const (
	classicBytes   = 113
	immutableBytes = 54
)

type idKind byte

const (
	idMessage    idKind = 'm'
	idFolder     idKind = 'f'
	idAttachment idKind = 'a'
)

// itemRef is the content of an id.
type itemRef struct {
	num        uint64
	location   uint32
	attachment uint32
	immutable  bool
}

// formatID writes an id.
func (b *mailbox) formatID(kind idKind, ref itemRef) string {
	var space [classicBytes]byte
	raw := space[:]
	prefix := [3]byte{0x00, 0x03, 0x24}
	if ref.immutable {
		raw = space[:immutableBytes]
		prefix = [3]byte{0x00, 0x09, 0x00}
		ref.location = 0
	}
	copy(raw, prefix[:])
	copy(raw[3:], b.guid[:])
	raw[19] = byte(kind)
	binary.BigEndian.PutUint64(raw[20:], ref.num)
	binary.BigEndian.PutUint32(raw[28:], ref.location)
	binary.BigEndian.PutUint32(raw[32:], ref.attachment)
	end := len(raw) - 8
	for i := 36; i < end; i++ {
		raw[i] = b.guid[i%16] ^ byte(i*37) // the same for all ids of a mailbox, as the store's entry ids are
	}
	binary.BigEndian.PutUint64(raw[end:], b.checksum(raw[:end]))
	return base64.URLEncoding.EncodeToString(raw)
}

func (b *mailbox) checksum(raw []byte) uint64 {
	h := fnv.New64a()
	h.Write(b.sim.key[:])
	h.Write(raw)
	return h.Sum64()
}

// parseID reads an id back. One that was never handed out is malformed; one of another mailbox is not found.
func (b *mailbox) parseID(kind idKind, id string) (itemRef, *apiError) {
	raw, err := base64.URLEncoding.DecodeString(id)
	if err != nil || len(raw) != classicBytes && len(raw) != immutableBytes {
		return itemRef{}, errIDMalformed()
	}
	end := len(raw) - 8
	if binary.BigEndian.Uint64(raw[end:]) != b.checksum(raw[:end]) || idKind(raw[19]) != kind {
		return itemRef{}, errIDMalformed()
	}
	if string(raw[3:19]) != string(b.guid[:]) {
		return itemRef{}, errItemNotFound()
	}
	return itemRef{
		num:        binary.BigEndian.Uint64(raw[20:]),
		location:   binary.BigEndian.Uint32(raw[28:]),
		attachment: binary.BigEndian.Uint32(raw[32:]),
		immutable:  len(raw) == immutableBytes,
	}, nil
}

// messageID is the id of m in the form the caller asked for.
func (m *message) id(immutable bool) string {
	return m.folder.box.formatID(idMessage, itemRef{num: m.num, location: m.location, immutable: immutable})
}

func (m *message) attachmentID(a *attachment, immutable bool) string {
	return m.folder.box.formatID(idAttachment,
		itemRef{num: m.num, location: m.location, attachment: a.num, immutable: immutable})
}

func (f *folder) id() string { return f.box.formatID(idFolder, itemRef{num: uint64(f.num)}) }

// messageByID finds a message by either form of its id. A classic id of before a move names nothing any more.
func (b *mailbox) messageByID(id string) (*message, *apiError) {
	ref, err := b.parseID(idMessage, id)
	if err != nil {
		return nil, err
	}
	m := b.messages[ref.num]
	if m == nil || !ref.immutable && ref.location != m.location {
		return nil, errItemNotFound()
	}
	return m, nil
}

// folderByID finds a folder by id or well-known name.
func (b *mailbox) folderByID(id string) (*folder, *apiError) {
	if f := b.wellKnown[asciiLower(id)]; f != nil {
		return f, nil
	}
	if wellKnownNames[asciiLower(id)] {
		return nil, errFolderNotFound()
	}
	ref, err := b.parseID(idFolder, id)
	if err != nil {
		return nil, err
	}
	f := b.folders[uint32(ref.num)]
	if f == nil {
		return nil, errFolderNotFound()
	}
	return f, nil
}

func asciiLower(s string) string {
	for i := 0; i < len(s); i++ {
		if c := s[i]; c >= 'A' && c <= 'Z' {
			b := []byte(s)
			for ; i < len(b); i++ {
				if c := b[i]; c >= 'A' && c <= 'Z' {
					b[i] = c + 'a' - 'A'
				}
			}
			return string(b)
		}
	}
	return s
}

func encodeURL(parts ...[]byte) string {
	var all []byte
	for _, p := range parts {
		all = append(all, p...)
	}
	return base64.RawURLEncoding.EncodeToString(all)
}
