#!/bin/sh
# Runs when the files are there. deb: configure [old version]; rpm: 1 for an installation, 2 for an update.
set -e
case "$1" in
configure) [ -n "$2" ] && update=yes || update= ;;
1) update= ;;
2) update=yes ;;
*) exit 0 ;;
esac

if ! getent group postern >/dev/null; then groupadd --system postern; fi
if ! getent passwd postern >/dev/null; then
	useradd --system --gid postern --home-dir /var/lib/postern --no-create-home --shell /usr/sbin/nologin --comment "Postern mail service" postern
fi

# Root writes the configuration, the service reads it, nobody else does. The setgid bit gives new files the group.
chown root:postern /etc/postern /etc/postern/postern.env
chmod 2750 /etc/postern
chmod 640 /etc/postern/postern.env
# As the unit would make it, so that commands work before the first start.
if [ ! -e /var/lib/postern ]; then install -d -m 700 -o postern -g postern /var/lib/postern; fi

if command -v systemctl >/dev/null; then
	if [ -d /run/systemd/system ]; then systemctl daemon-reload || true; fi
	if [ -z "$update" ]; then systemctl enable postern.service >/dev/null 2>&1 || true; fi
	if [ -d /run/systemd/system ]; then
		if [ -n "$update" ]; then action=try-restart; else action=start; fi
		# deb-systemd-invoke minds the administrator's policy-rc.d.
		if command -v deb-systemd-invoke >/dev/null; then
			deb-systemd-invoke $action postern.service || true
		else
			systemctl $action postern.service || true
		fi
	fi
fi

if [ -z "$update" ] && [ ! -e /etc/postern/postern.yaml ]; then
	echo "postern: write a configuration with: cd /etc/postern && postern setup; then: systemctl start postern"
fi
exit 0
