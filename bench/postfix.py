"""A Postfix instance of its own, in a directory of its own, with default settings but for addresses, paths and the next hop.

It needs root, as Postfix's master does. The system's own Postfix, its queue and /etc/postfix are not touched. For logins it has TLS with a
P-256 certificate as ours is, and Cyrus SASL with one user in a database of its own (Dovecot was no faster).
"""

from __future__ import annotations

import shutil
import subprocess
import time
from pathlib import Path

from bench.application import PASSWORD, USER
from bench.traffic import HOST, await_port, free_port
from smtpplus.submission.tls import make_self_signed

POSTFIX = "/usr/sbin/postfix"
TEMPLATE = Path("/etc/postfix/master.cf.proto")
SASLPASSWD = "/usr/sbin/saslpasswd2"
NAME = "bench.example.com"


def version() -> str:
    """Of the installed Postfix."""
    return subprocess.run(["/usr/sbin/postconf", "-d", "-h", "mail_version"], capture_output=True, text=True, check=True).stdout.strip()


class Postfix:
    """One start in `directory`. With `held`, accepted mail goes to the hold queue, the cheapest thing that Postfix can do with it.

    With `logins`, clients may start TLS and log in as USER.
    """

    name = "postfix"

    def __init__(self, directory: Path, *, next_hop: int, held: bool, logins: bool = False) -> None:
        self.directory = directory
        self.port = free_port()
        self._etc = directory / "etc"
        for folder in (self._etc, directory / "queue", directory / "data", directory / "log"):
            folder.mkdir(parents=True)
        shutil.chown(directory / "data", "postfix")
        (self._etc / "main.cf").write_text(self._main(next_hop, held) + (self._logins() if logins else ""))
        (self._etc / "master.cf").write_text(self._master())
        self._control("start")
        await_port(self.port)

    def stop(self) -> None:
        """Stop it; what it had accepted stays in the queue."""
        self._control("stop")

    def queued(self) -> int:
        """Messages in the queue, wherever they stand."""
        stands = ("maildrop", "incoming", "active", "deferred", "hold")
        return sum(1 for stand in stands for path in (self.directory / "queue" / stand).rglob("*") if path.is_file())

    def log(self) -> str:
        """The last that it said."""
        return (self.directory / "log" / "mail.log").read_text("utf-8", "replace")[-4000:]

    def _control(self, verb: str) -> None:
        done = subprocess.run([POSTFIX, "-c", str(self._etc), verb], capture_output=True, text=True, check=False, timeout=120.0)
        if done.returncode != 0:
            raise RuntimeError(f"postfix {verb} ended with {done.returncode}: {done.stderr}")

    def _main(self, next_hop: int, held: bool) -> str:
        settings: dict[str, object] = {
            "compatibility_level": "3.6",
            "queue_directory": self.directory / "queue",
            "data_directory": self.directory / "data",
            "command_directory": "/usr/sbin",
            "daemon_directory": "/usr/lib/postfix/sbin",
            "maillog_file_prefixes": self.directory,
            "maillog_file": self.directory / "log" / "mail.log",
            "myhostname": NAME,
            "mydestination": "",
            "mynetworks": "127.0.0.0/8",
            "inet_interfaces": HOST,
            "inet_protocols": "ipv4",
            "relayhost": f"[{HOST}]:{next_hop}",
            "alias_maps": "",
            "alias_database": "",
            "message_size_limit": 50 * 1024**2,  # as smtpplus; by default it takes no 10 MiB
            "mailbox_size_limit": 0,
        }
        if held:
            settings["smtpd_client_restrictions"] = "check_client_access static:HOLD"
        return _lines(settings)

    def _logins(self) -> str:
        """Make certificate and user; the settings that use them."""
        certificate, key, users = self._etc / "certificate.pem", self._etc / "key.pem", self.directory / "data" / "sasldb2"
        make_self_signed(NAME, certificate, key, time.time())
        command = [SASLPASSWD, "-p", "-c", "-f", str(users), "-u", NAME, USER]
        try:
            subprocess.run(command, input=PASSWORD, text=True, check=True, capture_output=True, timeout=60.0)
        except FileNotFoundError:
            raise RuntimeError("Postfix's logins need the packages sasl2-bin and libsasl2-modules: run  make bench-setup") from None
        shutil.chown(users, "postfix")
        sasl = {"pwcheck_method": "auxprop", "auxprop_plugin": "sasldb", "mech_list": "PLAIN LOGIN", "sasldb_path": users}
        (self._etc / "sasl").mkdir()  # where Debian's Postfix looks by itself
        (self._etc / "sasl" / "smtpd.conf").write_text("".join(f"{key}: {value}\n" for key, value in sasl.items()))
        return _lines(
            {
                "smtpd_tls_security_level": "may",
                "smtpd_tls_cert_file": certificate,
                "smtpd_tls_key_file": key,
                "smtpd_sasl_auth_enable": "yes",
                "cyrus_sasl_config_path": self._etc / "sasl",
                "smtpd_sasl_local_domain": NAME,
            }
        )

    def _master(self) -> str:
        """The package's own master.cf, with our port, without chroot, with postlogd (which Debian's file may lack)."""
        lines = [self._service(line) for line in TEMPLATE.read_text().splitlines()]
        if not any(line.startswith("postlog ") for line in lines):
            lines.append("postlog unix-dgram n - n - 1 postlogd")
        return "\n".join(lines) + "\n"

    def _service(self, line: str) -> str:
        fields = line.split()
        if not fields or line.startswith(("#", " ", "\t")):
            return line
        if fields[:2] == ["smtp", "inet"]:
            fields[0] = f"{HOST}:{self.port}"
        fields[4] = "n"
        return " ".join(fields)


def _lines(settings: dict[str, object]) -> str:
    return "".join(f"{key} = {value}\n" for key, value in settings.items())
