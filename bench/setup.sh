#!/bin/sh
# Installs Debian's postfix package for `make bench`: the server that is measured against, and smtp-source and smtp-sink.
# It asks nothing, configures nothing and leaves no Postfix running; the bench starts an instance of its own.
set -eu
if [ -x /usr/sbin/smtp-source ] && [ -x /usr/sbin/postfix ]; then
    echo "postfix is installed"
    exit 0
fi
if [ "$(id -u)" != 0 ]; then
    echo "the bench needs Debian's postfix package. As root, run:  make bench-setup" >&2
    exit 1
fi
echo "postfix postfix/main_mailer_type select No configuration" | debconf-set-selections
apt-get update -qq
DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends postfix
