#!/bin/sh
# Builds everything that is given out into dist/: programs for all systems in archives, deb and rpm packages, the content of a
# container, lists of what is inside (SBOM), and SHA256SUMS. Called by make dist.
#
# The same source gives the same bytes: no paths (-trimpath), no cgo, no clock (SOURCE_DATE_EPOCH, by itself the time of the last
# commit), and no state of the checkout (-buildvcs=false; the version is given). VERSION, TARGETS and SBOM=no can be set.
set -eu
cd "$(dirname "$0")/.."
GO=${GO:-go}
NFPM=${NFPM:-github.com/goreleaser/nfpm/v2/cmd/nfpm@v2.43.0}
CYCLONEDX=${CYCLONEDX:-github.com/CycloneDX/cyclonedx-gomod/cmd/cyclonedx-gomod@v1.9.0}
TARGETS=${TARGETS:-linux/amd64 linux/arm64 darwin/amd64 darwin/arm64 windows/amd64 windows/arm64}
MAINTAINER=${MAINTAINER:-$(git log -1 --format='%an <%ae>' 2>/dev/null || echo 'Postern <postern@localhost>')}

# A tag v1.2.3 is version 1.2.3; what has none counts the commits, so that a later one is newer to package managers.
if [ -z "${VERSION:-}" ]; then
	if tag=$(git describe --tags --exact-match --match 'v[0-9]*' 2>/dev/null); then
		VERSION=${tag#v}
	else
		VERSION=0.0.0+$(git rev-list --count HEAD).g$(git rev-parse --short=12 HEAD)
	fi
	if [ -n "$(git status --porcelain)" ]; then VERSION=$VERSION.dirty; fi
fi
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}
MTIME=$(date -u -d "@$SOURCE_DATE_EPOCH" +%Y-%m-%dT%H:%M:%SZ)
export VERSION SOURCE_DATE_EPOCH MTIME MAINTAINER
export CGO_ENABLED=0 GOFLAGS=-mod=readonly
say() { printf '%s %s\n' "$(date +%H:%M:%S)" "$*"; }

rm -rf dist
mkdir -p dist/build/man dist/build/completions

say "version $VERSION of $MTIME"
for target in $TARGETS; do
	os=${target%/*} arch=${target#*/}
	say "building for $os on $arch"
	exe=postern
	[ "$os" = windows ] && exe=postern.exe
	GOOS=$os GOARCH=$arch $GO build -trimpath -buildvcs=false -ldflags "-s -w -buildid= -X main.version=$VERSION" \
		-o "dist/build/${os}_$arch/$exe" ./cmd/postern
done

say "manual pages and completions"
$GO test -count=1 -run '^TestManPages$' ./cmd/postern -man "$PWD/dist/build/man" >/dev/null
gzip -9 -n dist/build/man/*.1
# The commands are the same on all systems; this one's program writes what shells want to know.
$GO build -trimpath -buildvcs=false -o dist/build/here ./cmd/postern
dist/build/here completion bash >dist/build/completions/postern.bash
dist/build/here completion zsh >dist/build/completions/_postern
dist/build/here completion fish >dist/build/completions/postern.fish
dist/build/here completion powershell >dist/build/completions/postern.ps1
rm dist/build/here

GOOS= GOARCH= $GO build -o dist/build/pack ./deploy/pack
for target in $TARGETS; do
	os=${target%/*} arch=${target#*/}
	name=postern_${VERSION}_${os}_$arch
	common="README.md CHANGELOG.md LICENSE docs cmd/postern/example.yaml dist/build/completions"
	case $os in
	windows) dist/build/pack -o "dist/$name.zip" -prefix "postern-$VERSION" -time "$SOURCE_DATE_EPOCH" "dist/build/${os}_$arch/postern.exe" $common ;;
	linux) dist/build/pack -o "dist/$name.tar.gz" -prefix "postern-$VERSION" -time "$SOURCE_DATE_EPOCH" "dist/build/${os}_$arch/postern" $common dist/build/man deploy/systemd ;;
	*) dist/build/pack -o "dist/$name.tar.gz" -prefix "postern-$VERSION" -time "$SOURCE_DATE_EPOCH" "dist/build/${os}_$arch/postern" $common dist/build/man ;;
	esac
done

for arch in amd64 arm64; do
	[ -e "dist/build/linux_$arch/postern" ] || continue
	for format in deb rpm; do
		say "$format for $arch"
		ARCH=$arch $GO run "$NFPM" pkg --config deploy/nfpm.yaml --packager $format --target dist/ >dist/build/nfpm.log 2>&1 || { cat dist/build/nfpm.log >&2; exit 1; }
	done
	say "content of a container for $arch"
	deploy/container/root.sh "dist/build/linux_$arch/postern" "dist/build/container_$arch"
	tar --sort=name --mtime="@$SOURCE_DATE_EPOCH" --owner=0 --group=0 --numeric-owner -C "dist/build/container_$arch" -c . |
		gzip -9 -n >"dist/postern_${VERSION}_container_$arch.tar.gz"
done

if [ "${SBOM:-yes}" != no ]; then
	for target in $TARGETS; do
		os=${target%/*} arch=${target#*/}
		exe=postern
		[ "$os" = windows ] && exe=postern.exe
		say "list of what is inside, $os on $arch"
		$GO run "$CYCLONEDX" bin -json -noserial -version "v$VERSION" -output "dist/postern_${VERSION}_${os}_$arch.cdx.json" "dist/build/${os}_$arch/$exe" 2>/dev/null
		# The one thing in it that depends on when it was made.
		sed -i "s/\"timestamp\": \"[^\"]*\"/\"timestamp\": \"$MTIME\"/" "dist/postern_${VERSION}_${os}_$arch.cdx.json"
	done
fi

(cd dist && sha256sum -- *.* >SHA256SUMS)
say "done"
cat dist/SHA256SUMS
