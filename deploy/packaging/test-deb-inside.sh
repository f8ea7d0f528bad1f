#!/bin/bash
# What test-deb.sh does inside the fresh Debian.
set -euo pipefail
step() { echo "--- $*"; }
fail() {
	echo "FAILED: $*"
	journalctl -u postern.service --no-pager | tail -40
	exit 1
}
until_ok() { # until_ok SECONDS COMMAND...
	local n=$1
	shift
	for _ in $(seq "$n"); do
		if "$@" >/dev/null 2>&1; then return 0; fi
		sleep 1
	done
	fail "not within $n s: $*"
}
ip link set lo up 2>/dev/null || true

step "the older package, into a system that knows nothing of it"
DEBIAN_FRONTEND=noninteractive dpkg -i /test/old.deb
[ "$(dpkg-query -W -f '${Version}' postern)" = 0.0.0+1 ] || fail "version"
getent passwd postern || fail "there is no user"
[ "$(stat -c '%U:%G %a' /etc/postern)" = "root:postern 2750" ] || fail "$(stat -c '%U:%G %a' /etc/postern)"
[ "$(stat -c '%U:%G %a' /etc/postern/postern.env)" = "root:postern 640" ] || fail "$(stat -c '%U:%G %a' /etc/postern/postern.env)"
[ "$(stat -c '%U:%G %a' /var/lib/postern)" = "postern:postern 700" ] || fail "$(stat -c '%U:%G %a' /var/lib/postern)"
systemctl is-enabled postern.service || fail "not enabled"
systemctl is-active postern.service && fail "runs without a configuration" || true
systemd-analyze --man=no verify /usr/lib/systemd/system/postern.service || fail "the unit has faults"
systemd-analyze security --no-pager postern.service | tail -1
test -e /usr/share/man/man1/postern-serve.1.gz && test -e /usr/share/bash-completion/completions/postern || fail "manual or completion is missing"

step "a configuration, with the simulator in place of Microsoft 365"
systemd-run -q --unit=sim /usr/bin/postern simulator --address 127.0.0.1:9700
until_ok 20 curl -s -o /dev/null http://127.0.0.1:9700/
hash=$(printf 'wonderland\n' | postern login hash)
umask 027
cat >/etc/postern/postern.yaml <<YAML
state: /var/lib/postern
credentials:
  contoso: {tenant: 6d5f3f6e-0000-4000-8000-000000000000, client_id: 2c9b0c44-0000-4000-8000-000000000000, client_secret: "\${POSTERN_CLIENT_SECRET}", login_url: "http://127.0.0.1:9700", graph_url: "http://127.0.0.1:9700"}
mailboxes:
  - {address: alice@contoso.example, credential: contoso}
logins:
  - {username: alice@contoso.example, password_hash: "$hash", mailbox: alice@contoso.example, allow: [smtp, imap]}
listeners:
  - {protocol: smtp, address: "127.0.0.1:25", tls: none}
  - {protocol: imap, address: "127.0.0.1:143", tls: none}
  - {protocol: http, address: "127.0.0.1:8025"}
YAML
echo "POSTERN_CLIENT_SECRET=sample-secret" >>/etc/postern/postern.env
echo "# an administrator was here" >>/etc/postern/postern.env
[ "$(stat -c '%G' /etc/postern/postern.yaml)" = postern ] || fail "the configuration's group"
cp /etc/postern/postern.yaml /test/

step "start, under the unit's settings, on ports below 1024"
systemctl start postern.service || fail "does not start"
systemctl is-active postern.service
until_ok 60 postern health --ready -c /etc/postern/postern.yaml
systemctl status --no-pager postern.service | sed -n 1,8p
pid=$(systemctl show -p MainPID --value postern.service)
grep -E '^(Uid|CapEff|CapBnd|NoNewPrivs|Seccomp):' "/proc/$pid/status"
[ "$(awk '/^Uid/{print $2}' "/proc/$pid/status")" = "$(id -u postern)" ] || fail "runs as another user"
[ "$(awk '/^CapBnd/{print $2}' "/proc/$pid/status")" = 0000000000000400 ] || fail "has more capabilities than CAP_NET_BIND_SERVICE"
[ "$(awk '/^Seccomp:/{print $2}' "/proc/$pid/status")" = 2 ] || fail "no filter of system calls"
nsenter -t "$pid" -m touch /usr/x 2>/dev/null && fail "the system is writable to it" || true

step "a message there and back"
send() { # send SUBJECT
	printf 'From: alice@contoso.example\r\nTo: alice@contoso.example\r\nMessage-ID: <%s@test.example>\r\nSubject: %s\r\n\r\nIt works.\r\n' "$1" "$1" |
		curl -sS --user alice@contoso.example:wonderland smtp://127.0.0.1:25 --mail-from alice@contoso.example --mail-rcpt alice@contoso.example -T -
}
imap() { curl -sS --user alice@contoso.example:wonderland "imap://127.0.0.1:143/$1" ${2:+-X "$2"}; }
has() { imap INBOX "UID SEARCH SUBJECT $1" | tr -d '\r' | grep -Eq '^\* SEARCH [0-9]'; }
send first
until_ok 60 has first
uid=$(imap INBOX "UID SEARCH SUBJECT first" | tr -d '\r')
validity=$(imap INBOX "STATUS INBOX (UIDVALIDITY)")
echo "$uid; $validity"

step "commands by root leave nothing that the service cannot use"
postern queue list -c /etc/postern/postern.yaml
postern backup -c /etc/postern/postern.yaml -o /test/backup.tar.zst
find /var/lib/postern ! -user postern | grep . && fail "files of others in the state folder" || true
systemctl reload postern.service || fail "does not reload"

step "update"
DEBIAN_FRONTEND=noninteractive dpkg -i /test/new.deb
grep -q "an administrator was here" /etc/postern/postern.env || fail "the update has changed the configuration"
systemctl is-active postern.service || fail "does not run after the update"
[ "$(systemctl show -p MainPID --value postern.service)" != "$pid" ] || fail "the old program still runs"
until_ok 60 postern health --ready -c /etc/postern/postern.yaml
[ "$(imap INBOX "UID SEARCH SUBJECT first" | tr -d '\r')" = "$uid" ] || fail "the update has changed the UIDs"
[ "$(imap INBOX "STATUS INBOX (UIDVALIDITY)")" = "$validity" ] || fail "the update has changed UIDVALIDITY"
send second
until_ok 60 has second

step "the watchdog: a program that hangs is started anew"
pid=$(systemctl show -p MainPID --value postern.service)
mkdir -p /run/systemd/system/postern.service.d
printf '[Service]\nWatchdogSec=3\n' >/run/systemd/system/postern.service.d/quick.conf
systemctl daemon-reload
systemctl restart postern.service
pid=$(systemctl show -p MainPID --value postern.service)
sleep 5
[ "$(systemctl show -p MainPID --value postern.service)" = "$pid" ] || fail "ended by the watchdog although it works"
kill -STOP "$pid"
restarted() { [ "$(systemctl show -p MainPID --value postern.service)" != "$pid" ] && systemctl is-active -q postern.service; }
until_ok 60 restarted
rm /run/systemd/system/postern.service.d/quick.conf
systemctl daemon-reload

step "restore, by root, of a backup made before the update"
systemctl stop postern.service
postern restore -c /etc/postern/postern.yaml --replace /test/backup.tar.zst
find /var/lib/postern ! -user postern | grep . && fail "files of others in the state folder" || true
systemctl start postern.service || fail "does not start after the restore"
until_ok 60 has second
[ "$(imap INBOX "UID SEARCH SUBJECT first" | tr -d '\r')" = "$uid" ] || fail "the restore has changed the UIDs"

install -m 700 /usr/bin/postern /test/program

step "remove: configuration and state stay"
DEBIAN_FRONTEND=noninteractive dpkg -r postern
systemctl is-active -q postern.service && fail "still runs" || true
[ -e /etc/postern/postern.yaml ] && [ -e /var/lib/postern/outbox.db ] || fail "removing takes too much away"

step "purge: nothing stays"
DEBIAN_FRONTEND=noninteractive dpkg -P postern
getent passwd postern && fail "the user stays" || true
getent group postern && fail "the group stays" || true
left=$(find / -xdev \( -path /proc -o -path /sys -o -path /test -o -path /run -o -path /var/log -o -path /dev \) -prune -o -name '*postern*' -print | grep -v '/postern-test.service$' || true)
[ -z "$left" ] || fail "left behind: $left"

step "by hand: a program copied to the machine makes itself a service"
mv /test/program /usr/local/bin/postern
hash -r
mkdir /etc/postern
cp /test/postern.yaml /etc/postern/postern.yaml
chmod 600 /etc/postern/postern.yaml
echo "POSTERN_CLIENT_SECRET=sample-secret" >/etc/postern/postern.env
postern service status && fail "a service that is not there runs" || true
postern service install && fail "installs a program that the service may not run" || true
chmod 755 /usr/local/bin/postern
postern service install
postern service start || fail "does not start"
until_ok 60 postern health --ready -c /etc/postern/postern.yaml
postern service status
[ "$(ps -o user= -p "$(systemctl show -p MainPID --value postern.service)" 2>/dev/null || stat -c %U "/proc/$(systemctl show -p MainPID --value postern.service)")" = postern ] || fail "runs as another user"
postern service stop
set +e
postern service status
[ $? = 3 ] || fail "status of a stopped service"
set -e
postern service uninstall
systemctl cat postern.service 2>/dev/null && fail "the unit stays" || true
