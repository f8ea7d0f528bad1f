#!/bin/bash
# Installs the rpm of dist/ by rpm itself into a root folder with a shell and the tools for users, updates it from an older one, and erases
# it, looking at files, modes, owners and what its scripts leave. Dependencies are not looked at, and nothing is started: the root
# is a Debian, where rpm knows no packages and systemd does not run; test-deb.sh boots one. Needs root, rpm, debootstrap and make dist.
#
#   deploy/packaging/test-rpm.sh [FOLDER]    FOLDER keeps the fresh root for the next time; by itself a temporary one
set -euo pipefail
cd "$(dirname "$0")/../.."
fail() {
	echo "test-rpm: FAILED: $*"
	exit 1
}
step() { echo "--- $*"; }
[ "$(id -u)" = 0 ] || { echo "test-rpm: must be run by root"; exit 2; }
for tool in rpm rpm2cpio debootstrap; do
	command -v $tool >/dev/null || { echo "test-rpm: $tool is not installed"; exit 2; }
done
arch=$(uname -m)
rpm=$(ls dist/postern-*."$arch".rpm 2>/dev/null | head -1) || true
[ -n "$rpm" ] || { echo "test-rpm: there is no rpm for $arch in dist/: run make dist"; exit 2; }
rpm=$PWD/$rpm

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
fresh=${1:-$work/fresh}
if [ ! -e "$fresh/bin/sh" ]; then
	step "making a root folder"
	debootstrap --variant=minbase "$(. /etc/os-release && echo "${VERSION_CODENAME:-bookworm}")" "$fresh" >"$work/debootstrap.log" 2>&1 || { tail -20 "$work/debootstrap.log"; exit 1; }
fi
root=$work/root
cp -a "$fresh" "$root"
in_root() { chroot "$root" "$@"; }
change() { rpm --root "$root" --nodeps --nosignature "$@" 2> >(grep -v -e 'RPM should not be used' -e 'assuming you know what' >&2); }
pkg() { rpm --root "$root" "$@"; }
mode() { in_root stat -c '%U:%G %a' "$1"; }
is() { [ "$(mode "$1")" = "$2" ] || fail "$1 is $(mode "$1"), not $2"; }

# An older package: the same content under another version.
step "an older package"
here=$(case $arch in x86_64) echo amd64 ;; aarch64) echo arm64 ;; esac)
MTIME=$(date -u -d "@$(git log -1 --format=%ct)" +%Y-%m-%dT%H:%M:%SZ) VERSION=0.0.0+1 ARCH=$here MAINTAINER='Postern <postern@localhost>' \
	go run "${NFPM:-github.com/goreleaser/nfpm/v2/cmd/nfpm@v2.43.0}" pkg --config deploy/nfpm.yaml --packager rpm --target "$work/old.rpm" >/dev/null

step "what it says of itself"
rpm -qp --qf '%{NAME} %{VERSION}-%{RELEASE} %{ARCH} %{LICENSE} %{PAYLOADCOMPRESSOR}\n' "$rpm"
rpm -qp --requires "$rpm"
[ "$(rpm -qp --qf '%{LICENSE}' "$rpm")" = Apache-2.0 ] || fail "licence"
rpm -qp --requires "$rpm" | grep -q '^ca-certificates' || fail "does not ask for ca-certificates"
rpm -qp --requires "$rpm" | grep -q '^shadow-utils' || fail "does not ask for the tools that make users"
rpm -K --nosignature "$rpm" | grep -q 'OK' || fail "digests"
[ "$(rpm -qp --configfiles "$rpm")" = /etc/postern/postern.env ] || fail "configuration files: $(rpm -qp --configfiles "$rpm")"

step "install the older one"
change -i "$work/old.rpm"
[ "$(pkg -q --qf '%{VERSION}' postern)" = 0.0.0+1 ] || fail "version $(pkg -q postern)"
in_root getent passwd postern || fail "there is no user"
is /etc/postern "root:postern 2750"
is /etc/postern/postern.env "root:postern 640"
is /var/lib/postern "postern:postern 700"
is /usr/bin/postern "root:root 755"
is /usr/lib/systemd/system/postern.service "root:root 644"
in_root /usr/bin/postern version || fail "does not run"
for f in /usr/share/man/man1/postern-serve.1.gz /usr/share/bash-completion/completions/postern /usr/share/zsh/site-functions/_postern /usr/share/fish/vendor_completions.d/postern.fish \
	/usr/share/doc/postern/prometheus/rules.yml; do
	[ -e "$root$f" ] || fail "$f is missing"
done
# All that the package owns is as it says, but for what its script changes by intent.
pkg -V --nodeps postern | grep -v -e '/etc/postern$' -e '/etc/postern/postern.env$' && fail "differs from the package" || true
find "$root/usr" \( -perm -4000 -o -perm -2000 \) -name '*postern*' | grep . && fail "setuid files" || true

step "update: configuration and state stay"
echo "# an administrator was here" >>"$root/etc/postern/postern.env"
echo "state: /var/lib/postern" >"$root/etc/postern/postern.yaml"
echo x >"$root/var/lib/postern/mark"
change -U "$rpm"
[ "$(pkg -q postern | wc -l)" = 1 ] || fail "both versions are there: $(pkg -q postern)"
[ "$(pkg -q --qf '%{VERSION}' postern)" != 0.0.0+1 ] || fail "the old version is still there"
grep -q "an administrator was here" "$root/etc/postern/postern.env" || fail "the update has changed the configuration"
[ -e "$root/usr/bin/postern" ] && [ -e "$root/var/lib/postern/mark" ] && [ -e "$root/etc/postern/postern.yaml" ] || fail "the update takes something away"
is /etc/postern "root:postern 2750"
is /etc/postern/postern.env "root:postern 640"

step "erase: configuration and state stay, nothing else"
change -e postern
pkg -q postern && fail "it is still there" || true
[ -e "$root/etc/postern/postern.yaml" ] && [ -e "$root/var/lib/postern/mark" ] || fail "erasing takes too much away"
grep -qs "an administrator was here" "$root/etc/postern/postern.env.rpmsave" || fail "the changed configuration is lost"
left=$(cd "$root" && find . -xdev \( -path ./proc -o -path ./sys -o -path ./var/lib/rpm -o -path ./var/lib/postern -o -path ./etc/postern \) -prune -o -name '*postern*' -print)
[ -z "$left" ] || fail "left behind: $left"
in_root getent passwd postern >/dev/null || fail "files without an owner stay behind"

step "install again, over what was left"
change -i "$rpm"
is /etc/postern "root:postern 2750"
[ -e "$root/etc/postern/postern.yaml" ] || fail "the configuration is gone"
echo "test-rpm: all is well"
