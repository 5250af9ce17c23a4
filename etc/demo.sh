#!/bin/sh
# `make run`: a relay to try out. Everything it makes lies under ./run; mail goes to the maildir ./run/Maildir.
set -eu
cd "$(dirname "$0")/.."
bin=$PWD/.venv/bin
config=run/smtpplus.toml

mkdir -p run
if [ ! -e "$config" ]; then
    cat > "$config" <<END
# Made by \`make run\`. Every option is explained in etc/smtpplus.toml.
hostname = "localhost"
state_directory = "$PWD/run/state"

[[listen]]
ports = "2525, 2587"
interfaces = ["127.0.0.1", "::1"]

[[route]]
destination = "*"
via = "maildir:$PWD/run/Maildir"

[http]
listen = "127.0.0.1:2580"
END
fi
# A machine without IPv6 has no ::1 to listen on.
"$bin/python" -c 'import socket; socket.socket(socket.AF_INET6).bind(("::1", 0))' 2>/dev/null \
    || sed -i 's/, "::1"\]/]/' "$config"
"$bin/smtpplus" --config "$config" config check > /dev/null

if made=$("$bin/smtpplus" --config "$config" user show demo --json 2>/dev/null); then
    password=PASSWORD
    echo "The user demo exists since an earlier run; its password was shown then. For another one:"
    echo "    .venv/bin/smtpplus --config $config user reset-password demo"
else
    made=$("$bin/smtpplus" --config "$config" user add demo --domains example.com --vouch --json)
    password=$(printf '%s' "$made" | "$bin/python" -c 'import json, sys; print(json.load(sys.stdin)["password"])')
    echo "User demo, password $password (shown this once). It may send from every address at example.com."
fi
cat <<END

Send a message with curl (add --ssl-reqd --insecure to use STARTTLS with the self-signed certificate):
    printf 'From: you@example.com\r\nTo: friend@example.net\r\nSubject: Hello\r\n\r\nHello.\r\n' | curl --silent --show-error --url smtp://127.0.0.1:2587 --user 'demo:$password' --mail-from you@example.com --mail-rcpt friend@example.net --upload-file -
or with Python:
    python3 -c 'import smtplib; s = smtplib.SMTP("127.0.0.1", 2587); s.login("demo", "$password"); s.sendmail("you@example.com", ["friend@example.net"], "From: you@example.com\r\nTo: friend@example.net\r\nSubject: Hello\r\n\r\nHello.\r\n")'
then look at it:
    cat run/Maildir/new/*
Mail log: run/state/mail.log. Stop with Ctrl-C.

END
exec "$bin/twistd" --nodaemon --pidfile= smtpplus --config "$config"
