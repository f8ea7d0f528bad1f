# Reads, searches, flags, appends, moves and deletes with imap_tools: PORT USER PASSWORD
import datetime, sys
from imap_tools import AND, MailBoxUnencrypted

port, user, password = sys.argv[1:]
with MailBoxUnencrypted('127.0.0.1', int(port)).login(user, password) as box:
    def uid_of(subject):
        found = list(box.uids(AND(subject=subject)))
        if len(found) != 1:
            sys.exit('%s: found %r' % (subject, found))
        return found[0]

    for m in box.fetch(AND(uid=uid_of('read me'))):
        print('read', m.text)
    print('text search', len(list(box.uids(AND(body='needle')))))
    print('fetched', len(list(box.fetch(mark_seen=False, headers_only=True, bulk=True))))
    box.flag(uid_of('flag me'), ['\\Flagged', '$Label1'], True)
    text = 'From: %s\r\nTo: x@y.example\r\nSubject: appended\r\nMessage-ID: <appended.%s>\r\n\r\nAppended by imap_tools.\r\n' % (user, user)
    box.append(text.encode(), 'Archive', dt=datetime.datetime.now(datetime.timezone.utc) - datetime.timedelta(days=1), flag_set=['\\Seen'])
    box.move(uid_of('move me'), 'Archive')
    box.delete(uid_of('delete me'))
