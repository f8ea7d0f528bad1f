// Reads, searches, flags, appends, moves and deletes with imapflow: PORT USER PASSWORD
const { ImapFlow } = require('imapflow');
const [port, user, pass] = process.argv.slice(2);
const client = new ImapFlow({ host: '127.0.0.1', port: +port, secure: false, doSTARTTLS: false, auth: { user, pass }, logger: false, clientInfo: { name: 'e2e' } });
(async () => {
  await client.connect();
  await client.list({ statusQuery: { messages: true, unseen: true } });
  const lock = await client.getMailboxLock('INBOX');
  const uidOf = async subject => {
    const uids = await client.search({ subject }, { uid: true });
    if (uids.length !== 1) throw new Error(subject + ': found ' + uids);
    return String(uids[0]);
  };
  const { content } = await client.download(await uidOf('read me'), undefined, { uid: true });
  let text = '';
  for await (const chunk of content) text += chunk;
  console.log('read', text.split('\r\n\r\n')[1]);
  console.log('text search', (await client.search({ body: 'needle' }, { uid: true })).length);
  let n = 0;
  for await (const m of client.fetch('1:*', { uid: true, flags: true, envelope: true, bodyStructure: true, internalDate: true, size: true })) if (m.size > 0) n++;
  console.log('fetched', n);
  await client.messageFlagsAdd(await uidOf('flag me'), ['\\Flagged', '$Label1'], { uid: true });
  await client.append('Archive', `From: ${user}\r\nTo: x@y.example\r\nSubject: appended\r\nMessage-ID: <appended.${user}>\r\n\r\nAppended by imapflow.\r\n`, ['\\Seen'], new Date(Date.now() - 86400e3));
  await client.messageMove(await uidOf('move me'), 'Archive', { uid: true });
  await client.messageDelete(await uidOf('delete me'), { uid: true });
  lock.release();
  await client.logout();
})().catch(err => { console.error(err.message, err.responseText || '', err.stack); process.exit(1); });
