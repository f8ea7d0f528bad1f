// Microsoft's own JavaScript client against the simulator. Prints one JSON object with what it saw.
// Arguments: base URL, access token, user.
import { createRequire } from "node:module";
import path from "node:path";

const modules = process.env.POSTERN_NODE_MODULES;
const require = createRequire(modules ? path.join(path.resolve(modules), "..", "index.js") : import.meta.url);
const { Client, PageIterator, BatchRequestContent, BatchResponseContent, LargeFileUploadTask, FileUpload } = require("@microsoft/microsoft-graph-client");

const [base, token, user] = process.argv.slice(2);
const host = new URL(base).hostname;
const authProvider = (done) => done(null, token);
const client = Client.init({ baseUrl: base + "/", defaultVersion: "v1.0", customHosts: new Set([host]), authProvider });
// The service's upload URLs are of another host, to which this client sends no token. Here the host is the same, so the
// upload goes through a client that knows no custom host.
const bare = Client.init({ baseUrl: base + "/", defaultVersion: "v1.0", authProvider });
const out = {};

// Listing, page by page.
const first = await client.api(`/users/${user}/mailFolders/inbox/messages`).select("id,subject").top(7).get();
let listed = 0;
await new PageIterator(client, first, () => { listed++; return true; }).iterate();
out.listed = listed;

// Delta: a round, a change, the next round.
const round = async (link) => {
  const rows = [];
  for (;;) {
    const page = await client.api(link).header("Prefer", 'odata.maxpagesize=9, IdType="ImmutableId"').get();
    rows.push(...page.value);
    if (page["@odata.deltaLink"]) return { rows, link: page["@odata.deltaLink"] };
    link = page["@odata.nextLink"];
  }
};
const full = await round(`/users/${user}/mailFolders/inbox/messages/delta`);
out.deltaFirst = full.rows.length;
await client.api(`/users/${user}/messages/${full.rows[0].id}`).patch({ isRead: true });
const next = await round(full.link);
out.deltaNext = next.rows.map((r) => r.isRead);

// A batch of reads and a write.
const request = (n, url, init) => ({ id: String(n), request: new Request(`https://graph.microsoft.com${url}`, init) });
const batch = new BatchRequestContent([
  request(1, `/users/${user}/messages/${full.rows[1].id}?$select=subject`),
  request(2, `/users/${user}/messages/nonsense`),
  request(3, `/users/${user}/messages/${full.rows[2].id}`, {
    method: "PATCH", headers: { "Content-Type": "application/json" }, body: JSON.stringify({ categories: ["Blue"] }),
  }),
]);
const answers = new BatchResponseContent(await client.api("/$batch").post(await batch.getContent()));
out.batch = ["1", "2", "3"].map((id) => answers.getResponseById(id).status);
out.batchSubject = (await answers.getResponseById("1").json()).subject;

// A large attachment onto a draft.
const draft = await client.api(`/users/${user}/messages`).post({ subject: "with a large file" });
const size = 5_000_000;
const bytes = new Uint8Array(size).map((_, i) => i % 251);
const session = await LargeFileUploadTask.createUploadSession(client, `/users/${user}/messages/${draft.id}/attachments/createUploadSession`, {
  AttachmentItem: { attachmentType: "file", name: "large.bin", size },
});
const task = new LargeFileUploadTask(bare, new FileUpload(bytes.buffer, "large.bin", size), session, { rangeSize: 2 * 1024 * 1024 });
const result = await task.upload();
out.location = result.location;
const list = await client.api(`/users/${user}/messages/${draft.id}/attachments`).select("id,name").get();
const value = await client.api(`/users/${user}/messages/${draft.id}/attachments/${list.value[0].id}/$value`).responseType("arraybuffer").get();
out.uploaded = [list.value[0].name, Buffer.compare(Buffer.from(value), Buffer.from(bytes)) === 0];

// Errors and sending.
try {
  await client.api(`/users/${user}/messages/nonsense`).get();
} catch (e) {
  out.error = [e.statusCode, e.code];
}
await client.api(`/users/${user}/sendMail`).post({
  message: { subject: "from JavaScript", body: { contentType: "Text", content: "hi" }, toRecipients: [{ emailAddress: { address: user } }] },
});
console.log(JSON.stringify(out));
