# Reads, searches, flags, appends, moves and deletes with Python's own library: PORT USER PASSWORD
import imaplib, sys, time

port, user, password = sys.argv[1:]
m = imaplib.IMAP4('127.0.0.1', int(port), timeout=40)
m.login(user, password)
m.select('INBOX')


def ok(answer):
    if answer[0] != 'OK':
        sys.exit('server says %r' % (answer,))
    return answer[1]


def uid_of(subject):
    uids = ok(m.uid('SEARCH', None, 'SUBJECT', '"%s"' % subject))[0].split()
    if len(uids) != 1:
        sys.exit('%s: found %r' % (subject, uids))
    return uids[0].decode()


body = ok(m.uid('FETCH', uid_of('read me'), '(BODY[TEXT])'))[0][1]
print('read', body.decode())
print('text search', len(ok(m.search(None, 'BODY', 'needle'))[0].split()))
sizes = ok(m.fetch('1:*', '(UID FLAGS RFC822.SIZE ENVELOPE BODYSTRUCTURE INTERNALDATE)'))
print('fetched', len(sizes))
ok(m.uid('STORE', uid_of('flag me'), '+FLAGS', r'(\Flagged $Label1)'))
ok(m.append('Archive', r'(\Seen)', time.time() - 86400, ('From: %s\r\nTo: x@y.example\r\nSubject: appended\r\nMessage-ID: <appended.%s>\r\n\r\nAppended by imaplib.\r\n' % (user, user)).encode()))
ok(m.uid('MOVE', uid_of('move me'), 'Archive'))
ok(m.uid('STORE', uid_of('delete me'), '+FLAGS', r'(\Deleted)'))
ok(m.expunge())
m.logout()
