"""`make clients`: real mail clients send through the running daemon with host, port, user and password and nothing else (A1).

Each sends one message without TLS and one with STARTTLS; it counts when the message is in the mailbox that the route leads to. What is
missing on the machine is installed first: Debian packages as root, Nodemailer by npm into a directory of this run. The certificate is
the daemon's own, for `localhost`, and clients that look at certificates are told to trust it. Exit status 1 if one of them fails.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import attrs

from tests.rig.daemon import Daemon

HERE = Path(__file__).parent
SENDER, RECIPIENT, USER = "app@example.com", "reader@example.net", "app"
PATIENCE = 60.0  # seconds for one client, and for its message to arrive
PACKAGES = (
    *("swaks", "libnet-ssleay-perl", "libauthen-sasl-perl", "curl", "msmtp", "git", "git-email", "libmailtools-perl"),
    *("libio-socket-ssl-perl", "libnet-smtp-ssl-perl"),
)


@attrs.frozen
class Task:
    """One message for one client."""

    port: int
    password: str
    tls: bool
    authority: Path  # the certificate to trust
    token: str  # in the message, and in no other
    home: Path  # an empty directory

    def message(self) -> str:
        """The message, as those take it that do not write it themselves."""
        return f"From: {SENDER}\r\nTo: {RECIPIENT}\r\nSubject: {self.token}\r\n\r\nsent by a real client\r\n"


@attrs.frozen
class Run:
    """How to run a client."""

    command: list[str]
    stdin: str = ""
    environment: dict[str, str] = attrs.field(factory=dict)


def swaks(task: Task) -> Run:
    command = ["swaks", "--server", "localhost", "--port", str(task.port), "--auth-user", USER, "--auth-password", task.password]
    command += ["--from", SENDER, "--to", RECIPIENT, "--header", f"Subject: {task.token}"]
    return Run([*command, "--tls", "--tls-verify", "--tls-ca-path", str(task.authority)] if task.tls else command)


def curl(task: Task) -> Run:
    command = ["curl", "--silent", "--show-error", "--url", f"smtp://localhost:{task.port}", "--user", f"{USER}:{task.password}"]
    command += ["--mail-from", SENDER, "--mail-rcpt", RECIPIENT, "--upload-file", "-"]
    return Run([*command, "--ssl-reqd", "--cacert", str(task.authority)] if task.tls else command, task.message())


def msmtp(task: Task) -> Run:
    account = f"account default\nhost localhost\nport {task.port}\nfrom {SENDER}\nauth on\nuser {USER}\npassword {task.password}\n"
    account += f"tls on\ntls_trust_file {task.authority}\n" if task.tls else "tls off\n"
    config = task.home / "msmtprc"
    config.touch(mode=0o600)
    config.write_text(account)
    return Run(["msmtp", "-C", str(config), RECIPIENT], task.message().replace("\r\n", "\n"))


def git(task: Task) -> Run:
    patch = task.home / "0001.patch"
    patch.write_text(
        f"From 0 Mon Sep 17 00:00:00 2001\nFrom: {SENDER}\nDate: Sat, 21 Nov 2026 12:00:00 +0000\nSubject: {task.token}\n\nbody\n"
    )
    command = ["git", "send-email", "--smtp-server=localhost", f"--smtp-server-port={task.port}", f"--smtp-user={USER}"]
    command += [f"--smtp-pass={task.password}", f"--from={SENDER}", f"--to={RECIPIENT}", "--confirm=never", "--suppress-cc=all"]
    secure = ["--smtp-encryption=tls", f"--smtp-ssl-cert-path={task.authority}"] if task.tls else []
    identity = {f"GIT_{role}_{part}": value for role in ("AUTHOR", "COMMITTER") for part, value in (("NAME", "App"), ("EMAIL", SENDER))}
    return Run([*command, *secure, str(patch)], environment={"HOME": str(task.home), **identity})


def nodemailer(task: Task) -> Run:
    arguments = [str(task.port), USER, task.password, "tls" if task.tls else "clear", SENDER, RECIPIENT, task.token]
    modules = {"NODE_PATH": str(task.home.parent / "node_modules"), "NODE_EXTRA_CA_CERTS": str(task.authority)}
    return Run(["node", str(HERE / "nodemailer.js"), *arguments], environment=modules)


def smtplib(task: Task) -> Run:
    program = (
        "import smtplib, ssl, sys\n"
        "port, user, password, tls, authority, sender, recipient = sys.argv[1:]\n"
        "with smtplib.SMTP('localhost', int(port)) as client:\n"
        "    if tls == 'True':\n"
        "        client.starttls(context=ssl.create_default_context(cafile=authority))\n"
        "    client.login(user, password)\n"
        "    client.sendmail(sender, recipient, sys.stdin.read())\n"
    )
    arguments = [str(task.port), USER, task.password, str(task.tls), str(task.authority), SENDER, RECIPIENT]
    return Run([sys.executable, "-c", program, *arguments], task.message())


CLIENTS: dict[str, tuple[Callable[[Task], Run], list[str]]] = {  # name: how it is run, how it tells its version
    "swaks": (swaks, ["swaks", "--version"]),
    "curl": (curl, ["curl", "--version"]),
    "msmtp": (msmtp, ["msmtp", "--version"]),
    "git send-email": (git, ["git", "--version"]),
    "Nodemailer": (nodemailer, ["node", "-p", "'nodemailer ' + require('nodemailer/package.json').version"]),
    "smtplib": (smtplib, [sys.executable, "--version"]),
}


def install(home: Path) -> None:
    """Have everything there; RuntimeError if that needs root and we are not."""
    missing = [package for package in PACKAGES if not _is_installed(package)]
    missing += ["nodejs", "npm"] if shutil.which("npm") is None else []
    if missing:
        if os.geteuid() != 0:
            raise RuntimeError(f"as root, run:  apt-get install {' '.join(missing)}")
        for command in (["apt-get", "update", "-qq"], ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *missing]):
            subprocess.run(command, check=True, env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"}, stdout=subprocess.DEVNULL)
    npm = ["npm", "install", "--silent", "--no-save", "--no-audit", "--no-fund", "--prefix", str(home), "nodemailer@7"]
    subprocess.run(npm, check=True, stdout=subprocess.DEVNULL, timeout=300.0)


def _is_installed(package: str) -> bool:
    done = subprocess.run(["dpkg-query", "-W", "-f", "${Status}", package], capture_output=True, text=True, check=False)
    return done.stdout.startswith("install ok installed")


def attempt(name: str, task: Task, daemon: Daemon, mailbox: Path) -> str:
    """Have a client send; how it logged in, or "FAILED: …"."""
    task.home.mkdir()
    before = len(_logins(daemon))
    run = CLIENTS[name][0](task)
    try:
        done = subprocess.run(
            run.command,
            input=run.stdin,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
            cwd=task.home,
            env={**os.environ, **run.environment},
        )
    except (OSError, subprocess.TimeoutExpired) as fault:
        return f"FAILED: {fault}"
    if done.returncode != 0:
        return f"FAILED: status {done.returncode}: {(done.stderr or done.stdout).strip()[-300:]}"
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        for path in mailbox.glob("**/new/*"):
            message = path.read_text("utf-8", "replace")
            if task.token in message and len(logins := _logins(daemon)) > before:
                secure = "with ESMTPSA" in message or "with UTF8SMTPSA" in message
                return logins[-1] if secure == task.tls else "FAILED: TLS was not as it was asked for"
        time.sleep(0.05)
    return "FAILED: the message, or the login in the mail log, never came"


def _logins(daemon: Daemon) -> list[str]:
    """The mechanisms of all logins so far, as the mail log has them; its last line may be unfinished."""
    log = daemon.state / "mail.log"
    lines = log.read_text("utf-8").splitlines(keepends=True) if log.exists() else []
    events = [json.loads(line) for line in lines if line.endswith("\n")]
    return [event["mechanism"] for event in events if event["event"] == "Authenticated"]


def version(name: str, home: Path) -> str:
    """What a client says of itself."""
    environment = {**os.environ, "NODE_PATH": str(home / "node_modules")}
    done = subprocess.run(CLIENTS[name][1], capture_output=True, text=True, check=False, env=environment, timeout=PATIENCE)
    return (done.stdout.strip().splitlines() or ["?"])[0][:40]


def main() -> int:
    """Install, send, print the table."""
    parser = argparse.ArgumentParser(prog="make clients", description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("client", nargs="*", metavar="CLIENT", help=f"only these, of {', '.join(CLIENTS)}")
    names = parser.parse_args().client or list(CLIENTS)
    if unknown := set(names) - set(CLIENTS):
        parser.error(f"no such client: {', '.join(unknown)}")
    failed = 0
    with tempfile.TemporaryDirectory(prefix="smtpplus-clients-") as directory:
        home = Path(directory)
        install(home)
        mailbox = home / "mail"
        settings = {"hostname": "localhost", "log": {"format": "json"}}
        with Daemon(home / "relay", routes=[{"destination": "*", "via": f"maildir:{mailbox}"}], settings=settings) as daemon:
            password = daemon.add_user(USER)
            daemon.start()
            print(f"{'client':16} {'version':42} {'no TLS':22} STARTTLS")
            for number, name in enumerate(names):
                results = []
                for tls in (False, True):
                    task_home = home / f"{number}-{tls}"
                    token = f"token-{number}-{tls}"
                    task = Task(daemon.port, password, tls, daemon.state / "certificate.pem", token, task_home)
                    results.append(attempt(name, task, daemon, mailbox))
                failed += sum(result.startswith("FAILED") for result in results)
                print(f"{name:16} {version(name, home):42} {results[0]:22} {results[1]}", flush=True)
            daemon.terminate()
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
