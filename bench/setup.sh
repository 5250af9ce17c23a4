#!/bin/sh
# Installs what `make bench` needs of Debian: postfix (the server that is measured against, and smtp-source and smtp-sink), Cyrus SASL for
# its logins, and a C compiler with libssl for the client. It configures nothing and leaves no Postfix running; the bench starts its own.
set -eu
if [ -x /usr/sbin/smtp-source ] && [ -x /usr/sbin/postfix ] && [ -x /usr/sbin/saslpasswd2 ] && [ -e /usr/include/openssl/ssl.h ] &&
    command -v gcc >/dev/null && [ -n "$(find /usr/lib -path '*sasl2/libplain.so*' -print -quit)" ]; then
    echo "what the bench needs is installed"
    exit 0
fi
if [ "$(id -u)" != 0 ]; then
    echo "the bench needs Debian packages. As root, run:  make bench-setup" >&2
    exit 1
fi
echo "postfix postfix/main_mailer_type select No configuration" | debconf-set-selections
apt-get update -qq
DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends postfix sasl2-bin libsasl2-modules gcc libc6-dev libssl-dev
