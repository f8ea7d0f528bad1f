#!/bin/bash
# Runs the program in the container's root folder as the container would: as the user 65532, everything read-only but the state, and nothing else in sight. Needs root. test-root.sh [FOLDER], by itself that of make dist.
set -euo pipefail
cd "$(dirname "$0")/../.."
root=$(realpath "${1:-dist/build/container_$(dpkg --print-architecture 2>/dev/null || echo amd64)}")
work=$(mktemp -d)
postern=$root/usr/bin/postern
"$postern" simulator --address 127.0.0.1:26970 >"$work/sim.log" 2>&1 &
sim=$!
trap 'kill $sim 2>/dev/null; rm -rf "$work"' EXIT
find "$root" -type f | sed "s|^$root||" | sort
find "$root" \( -perm -4000 -o -perm -2000 \) -type f | grep . && { echo "FAILED: setuid files"; exit 1; }
[ -e "$root/bin/sh" ] && { echo "FAILED: there is a shell"; exit 1; }
mkdir "$work/etc" "$work/state" "$work/tmp"
chown 65532:65532 "$work/state"
hash=$(printf 'wonderland\n' | "$postern" login hash)
cat >"$work/etc/postern.yaml" <<YAML
credentials:
  c: {tenant: 6d5f3f6e-0000-4000-8000-000000000000, client_id: 2c9b0c44-0000-4000-8000-000000000000, client_secret: "\${SECRET}", login_url: "http://127.0.0.1:26970", graph_url: "http://127.0.0.1:26970"}
mailboxes: [{address: alice@contoso.example, credential: c}]
logins: [{username: alice@contoso.example, password_hash: "$hash", mailbox: alice@contoso.example}]
listeners:
  - {protocol: smtp, address: "127.0.0.1:26971", tls: none}
  - {protocol: imap, address: "127.0.0.1:26972", tls: none}
  - {protocol: http, address: "127.0.0.1:26973"}
YAML
chmod 644 "$work/etc/postern.yaml"
export work root
unshare --mount --pid --fork --kill-child bash -euc '
	mount --bind "$root" "$root"
	mount -o remount,bind,ro "$root"
	mount --bind "$work/state" "$root/var/lib/postern"
	mount --bind "$work/etc" "$root/etc/postern"
	mount -o remount,bind,ro "$root/etc/postern"
	asuser() { exec env -i PATH=/usr/sbin:/usr/bin SECRET=sample-secret POSTERN_CONFIG=/etc/postern/postern.yaml POSTERN_LOG_FORMAT=json \
		chroot --userspec=65532:65532 --groups= "$root" /usr/bin/postern "$@"; }
	asuser serve >"$work/out" 2>"$work/log" &
	pid=$!
	for _ in $(seq 60); do (asuser health --ready) >/dev/null 2>&1 && break; sleep 1; done
	(asuser health --ready)
	kill -TERM $pid
	wait $pid
' || { echo FAILED; cat "$work/log"; exit 1; }
ls -la "$work/state"
echo "test-root: all is well"
