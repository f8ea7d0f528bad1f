#!/bin/sh
# Runs while the files are still there. deb: remove or upgrade; rpm: 0 for a removal, 1 for an update.
set -e
case "$1" in
remove | 0)
	if command -v systemctl >/dev/null; then
		if [ -d /run/systemd/system ]; then systemctl stop postern.service || true; fi
		systemctl disable postern.service >/dev/null 2>&1 || true
	fi
	;;
esac
exit 0
