# Reads, searches, flags, appends, moves and deletes with Ruby's net/imap: PORT USER PASSWORD
require "net/imap"

port, user, password = ARGV
imap = Net::IMAP.new("127.0.0.1", port: port.to_i, ssl: false)
imap.login(user, password)
imap.select("INBOX")
uid_of = lambda do |subject|
  found = imap.uid_search(["SUBJECT", subject])
  abort "#{subject}: found #{found}" if found.size != 1
  found[0]
end
puts "read #{imap.uid_fetch(uid_of["read me"], "BODY[TEXT]")[0].attr["BODY[TEXT]"]}"
puts "text search #{imap.search(["BODY", "needle"]).size}"
puts "fetched #{imap.fetch(1..-1, ["UID", "FLAGS", "RFC822.SIZE", "ENVELOPE", "BODYSTRUCTURE", "INTERNALDATE"]).size}"
imap.uid_store(uid_of["flag me"], "+FLAGS", [:Flagged, "$Label1"])
text = "From: #{user}\r\nTo: x@y.example\r\nSubject: appended\r\nMessage-ID: <appended.#{user}>\r\n\r\nAppended by net/imap.\r\n"
imap.append("Archive", text, [:Seen], Time.now - 86400)
imap.uid_move(uid_of["move me"], "Archive")
imap.uid_store(uid_of["delete me"], "+FLAGS", [:Deleted])
imap.expunge
imap.logout
