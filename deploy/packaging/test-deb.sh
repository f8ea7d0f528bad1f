#!/bin/bash
# Installs the deb of dist/ into a fresh Debian that systemd really boots, in a container of systemd-nspawn: the service starts under all
# its hardening, sends and reads a message with the simulator in place of Microsoft 365, is updated from an older package with
# its state kept, backs up, and is purged without a trace. Needs root, debootstrap, systemd-container, dpkg-deb and some minutes.
#
#   deploy/packaging/test-deb.sh [FOLDER]    FOLDER keeps the fresh Debian for the next time; by itself a temporary one
set -euo pipefail
cd "$(dirname "$0")/../.."
[ "$(id -u)" = 0 ] || { echo "test-deb: must be run by root"; exit 2; }
for tool in debootstrap systemd-nspawn dpkg-deb; do
	command -v $tool >/dev/null || { echo "test-deb: $tool is not installed"; exit 2; }
done
arch=$(dpkg --print-architecture)
deb=$(ls dist/postern_*_"$arch".deb 2>/dev/null | head -1) || true
[ -n "$deb" ] || { echo "test-deb: there is no deb for $arch in dist/: run make dist"; exit 2; }

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
fresh=${1:-$work/fresh}
suite=$(. /etc/os-release && echo "${VERSION_CODENAME:-bookworm}")
if [ ! -e "$fresh/bin/sh" ]; then
	echo "test-deb: making a Debian $suite"
	debootstrap --variant=minbase --include=systemd,systemd-sysv,dbus,ca-certificates,curl,libcurl4 "$suite" "$fresh" >"$work/debootstrap.log" 2>&1 ||
		{ tail -20 "$work/debootstrap.log"; exit 1; }
fi
root=$work/root
cp -a "$fresh" "$root"
mkdir -p "$root/test"
cp "$deb" "$root/test/new.deb"

# An older package: the same, with another version.
mkdir "$work/old"
dpkg-deb -R "$deb" "$work/old"
sed -i 's/^Version: .*/Version: 0.0.0+1/' "$work/old/DEBIAN/control"
dpkg-deb --root-owner-group -Znone -b "$work/old" "$root/test/old.deb" >/dev/null

cp deploy/packaging/test-deb-inside.sh "$root/test/inside.sh"
chmod +x "$root/test/inside.sh"
cat >"$root/etc/systemd/system/postern-test.service" <<'UNIT'
[Unit]
After=multi-user.target
[Service]
Type=oneshot
ExecStart=/bin/sh -c '/test/inside.sh >/test/log 2>&1; echo $? >/test/status; systemctl poweroff --no-block'
StandardOutput=null
UNIT
mkdir -p "$root/etc/systemd/system/default.target.wants"
ln -sf /etc/systemd/system/postern-test.service "$root/etc/systemd/system/default.target.wants/postern-test.service"

echo "test-deb: booting"
timeout 300 systemd-nspawn -q -D "$root" --register=no --keep-unit --private-network -b >"$work/boot.log" 2>&1 </dev/null || true
cat "$root/test/log" 2>/dev/null || tail -30 "$work/boot.log"
status=$(cat "$root/test/status" 2>/dev/null || echo 1)
[ "$status" = 0 ] && echo "test-deb: all is well" || echo "test-deb: FAILED"
exit "$status"
