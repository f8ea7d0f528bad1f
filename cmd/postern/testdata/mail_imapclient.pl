# Reads, searches, flags, appends, moves and deletes with Mail::IMAPClient: PORT USER PASSWORD
use strict;
use warnings;
use Mail::IMAPClient;

my ($port, $user, $password) = @ARGV;
my $imap = Mail::IMAPClient->new(Server => '127.0.0.1', Port => $port, User => $user, Password => $password, Uid => 1) or die "log in: $@";
$imap->select('INBOX') or die $imap->LastError;

sub uid_of {
    my @found = $imap->search('SUBJECT', $_[0]);
    die "$_[0]: found @found" if @found != 1;
    return $found[0];
}

print 'read ', $imap->body_string(uid_of('read me')), "\n";
my @found = $imap->search('BODY', 'needle');
print 'text search ', scalar(@found), "\n";
my $all = $imap->fetch_hash('FLAGS', 'RFC822.SIZE', 'INTERNALDATE', 'BODYSTRUCTURE') or die $imap->LastError;
print 'fetched ', scalar(keys %$all), "\n";
$imap->store(uid_of('flag me'), '+FLAGS (\Flagged $Label1)') or die $imap->LastError;
$imap->append_string('Archive', "From: $user\r\nTo: x\@y.example\r\nSubject: appended\r\nMessage-ID: <appended.$user>\r\n\r\nAppended by Mail::IMAPClient.\r\n",
    '\Seen', $imap->Rfc2060_date(time - 2 * 86400) . ' 12:00:00 +0000') or die $imap->LastError;
$imap->move('Archive', uid_of('move me')) or die $imap->LastError;
$imap->delete_message(uid_of('delete me')) or die $imap->LastError;
$imap->expunge or die $imap->LastError;
$imap->logout;
