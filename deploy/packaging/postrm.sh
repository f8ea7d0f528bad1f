#!/bin/sh
# Runs when the files are gone. Configuration and state stay, unless a deb is purged: dpkg --purge postern.
set -e
if [ -d /run/systemd/system ] && command -v systemctl >/dev/null; then systemctl daemon-reload || true; fi
if [ "$1" = purge ]; then
	rm -rf /var/lib/postern /etc/postern
	# The user owns nothing any more.
	if getent passwd postern >/dev/null; then userdel postern || true; fi
	if getent group postern >/dev/null; then groupdel postern || true; fi
fi
exit 0
