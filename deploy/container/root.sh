#!/bin/sh
# Makes the root folder of the container: root.sh PROGRAM FOLDER. Everything in it is owned by root and read-only to
# the user 65532, but for the state.
set -eu
program=$1 root=$2
rm -rf "$root"
mkdir -p "$root/usr/bin" "$root/etc/ssl/certs" "$root/etc/postern" "$root/var/lib/postern" "$root/tmp"
install -m 755 "$program" "$root/usr/bin/postern"
# Microsoft's servers prove themselves by these.
for bundle in /etc/ssl/certs/ca-certificates.crt /etc/pki/tls/certs/ca-bundle.crt /etc/ssl/cert.pem; do
	if [ -e "$bundle" ]; then
		install -m 644 "$bundle" "$root/etc/ssl/certs/ca-certificates.crt"
		break
	fi
done
[ -e "$root/etc/ssl/certs/ca-certificates.crt" ] || { echo "root.sh: no bundle of CA certificates on this machine: install ca-certificates" >&2; exit 1; }
printf 'root:x:0:0:root:/:/sbin/nologin\npostern:x:65532:65532:postern:/var/lib/postern:/sbin/nologin\n' >"$root/etc/passwd"
printf 'root:x:0:\npostern:x:65532:\n' >"$root/etc/group"
chmod 644 "$root/etc/passwd" "$root/etc/group"
chmod 755 "$root" "$root/usr" "$root/usr/bin" "$root/etc" "$root/etc/ssl" "$root/etc/ssl/certs" "$root/etc/postern" "$root/var" "$root/var/lib"
chmod 700 "$root/var/lib/postern"
chmod 1777 "$root/tmp"
