"""What the server's own doctor looks at, one function for each part; each yields findings with a remedy. Nothing here changes anything.

A finding is good, bad, or None where it cannot be told or is no more than advice. What raises inside a part is a finding of its own.
"""

from __future__ import annotations

import ctypes
import os
import resource
import socket
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from smtpplus.mail.command_line import quoted
from smtpplus.mail.reply import printable

if TYPE_CHECKING:
    from cryptography import x509
    from sqlalchemy import Connection

    from smtpplus.config import Configuration, Listen

_TIME_ERROR = 5  # of adjtimex(2): the clock is not synchronized
_LOOKED_AT = 10_000  # recipients that were put off
_SPARE = 256  # file descriptors for everything else
SOON = 14 * 86_400.0  # seconds


class Finding(msgspec.Struct, frozen=True):
    """One line of the doctor. `good` is None where nothing is wrong and nothing proven."""

    part: str
    good: bool | None
    text: str
    remedy: str = ""


def running(connection: Connection) -> int:
    """The process id of the daemon; 0 if none runs on this machine."""
    from smtpplus.queue import standing

    found = standing.read(connection)
    return found[0].process if found is not None and standing.alive(found[0].process) else 0


def started_at(process: int) -> float:
    """When a process of this machine began, seconds since the epoch; 0.0 where that cannot be told. See proc(5)."""
    try:
        ticks = int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[19])
        up = float(Path("/proc/uptime").read_text().split()[0])
    except (OSError, ValueError, IndexError):
        return 0.0
    return time.time() - up + ticks / os.sysconf("SC_CLK_TCK")


def daemon(connection: Connection) -> Iterator[Finding]:
    """Whether the daemon runs."""
    process = running(connection)
    if process:
        yield Finding("daemon", True, f"it runs as process {process}")
    else:
        twistd = Path(sys.executable).with_name("twistd")
        remedy = f"start it: systemctl start smtpplus; without systemd: {twistd} --nodaemon --pidfile= smtpplus --config FILE"
        yield Finding("daemon", False, "it does not run on this machine", remedy)


def alerts(connection: Connection, now: float) -> Iterator[Finding]:
    """Whether alerts reach anybody; a channel that fails cannot tell of itself."""
    from smtpplus.operation.channels import failing

    for sentence in failing(connection, now):
        remedy = "look at [alerts] and its receiver; smtpplus alerts test tries it again"
        yield Finding("alerts", False, sentence, remedy)


def trusted(configuration: Configuration, connection: Connection) -> Iterator[Finding]:
    """Whether the users are there as whom trusted networks submit."""
    from smtpplus.accounts import store

    for name in sorted({block.trusted_as for block in configuration.listen if block.trusted_networks}):
        user = store.load_user(connection, name.strip().lower())
        if user is not None and user.active:
            yield Finding("trusted networks", True, f"they submit as user {user.name}")
            continue
        fault = "who does not exist" if user is None else "who is not active"
        change = f"smtpplus user add {quoted(name)}" if user is None else f"smtpplus user activate {quoted(name)}"
        remedy = f"{change}, or name another user in trusted_as of the [[listen]]"
        yield Finding("trusted networks", False, f"they submit as user {name}, {fault}: all their mail is refused", remedy)


def routes(configuration: Configuration, connection: Connection, destination: Callable[[str], str]) -> Iterator[Finding]:
    """For each next hop that a [[route]] names: why mail for it was put off last; `destination` is the router's."""
    from sqlalchemy import select

    from smtpplus.mail.envelope import queue_id
    from smtpplus.queue.rows import domain_of
    from smtpplus.storage.schema import recipients

    hops = dict.fromkeys(route.via for route in configuration.route if route.via.startswith(("smtp://", "smtps://")))
    if not hops:
        return
    c = recipients.c
    query = select(c.message_id, c.address, c.reply).where(c.reply.is_not(None)).order_by(c.message_id.desc()).limit(_LOOKED_AT)
    last: dict[str, tuple[int, str]] = {}
    for number, address, reply in connection.execute(query):
        last.setdefault(destination(domain_of(address)), (number, reply))
    for via in hops:
        if via not in last:
            yield Finding("route", None, f"no mail waits after an attempt at {via}")
            continue
        number, reply = last[via]
        remedy = f"correct the [[route]], or ask who runs the next hop; the whole story: smtpplus explain {quoted(queue_id(number))}"
        yield Finding("route", False, f"mail to {via} waits, as the last attempt ended with: {printable(reply)}", remedy)


def ready(configuration: Configuration, patience: float = 10.0) -> Iterator[Finding]:
    """Whether the daemon takes mail now, as it says itself on /readyz."""
    import urllib.error
    import urllib.request

    endpoint = configuration.http.listen
    if endpoint is None:
        return
    host, port = endpoint
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    url = f"http://{f'[{host}]' if ':' in host else host}:{port}/readyz"
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url, timeout=patience):
            yield Finding("mail", True, "it is taken")
    except urllib.error.HTTPError as answer:
        said = printable(answer.read(1000).decode("utf-8", "replace").strip())
        yield Finding("mail", False, f"it is not taken now: {said}", "the other lines and the log of the daemon say more")
    except OSError as fault:
        remedy = "the daemon may be busy, or another one than this configuration is for"
        yield Finding("mail", False, f"{url} does not answer: {getattr(fault, 'reason', fault)}", remedy)


def ports(configuration: Configuration, patience: float = 2.0) -> Iterator[Finding]:
    """Whether the ports answer: those named alone, and the ends of each range."""
    from smtpplus.operation.reach import look

    for block in configuration.listen:
        host = _reachable(block)
        for each in block.ports:
            for number in sorted({each.first, each.last}):
                found = look(host, number, patience, implicit=block.tls == "implicit")
                if found.state != "open":
                    remedy = "start the daemon; if it runs, its log says why the port could not be had"
                    yield Finding("ports", False, f"nobody answers at {host}, port {number} ({found.state})", remedy)
                elif not found.smtp:
                    yield Finding("ports", False, f"another program answers at port {number}", "stop that program, or name another port")
                else:
                    yield Finding("ports", True, f"port {number} answers")


def _reachable(block: Listen) -> str:
    """An address of this machine at which the block listens."""
    interface = next((each for each in block.interfaces if "." in each), block.interfaces[0])
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(interface, interface)


def certificates(configuration: Configuration, path: Path, now: float) -> Iterator[Finding]:
    """Whether clients can trust the certificates: that in `path`, and those of `[tls] directory`."""
    from cryptography import x509

    from smtpplus.observation.watchdog import chains

    if all(block.tls == "none" for block in configuration.listen):
        yield Finding("certificate", None, "no listener uses TLS")
        return
    if not path.exists():
        yield Finding("certificate", None, "there is none yet; one is made at the first start", "name a certificate under [tls]")
        return
    yield from _certificate("certificate", path, now)
    found = x509.load_pem_x509_certificate(path.read_bytes())
    if found.issuer == found.subject:
        yield Finding(
            "certificate", None, "it is signed by itself: mail clients warn about it", "name one of a known authority under [tls]"
        )
    wanted, names = configuration.hostname, _names(found)
    covered = wanted in names or f"*.{wanted.partition('.')[2]}" in names
    remedy = "get one for this name, or correct hostname"
    yield Finding("certificate", covered, f"it is {'' if covered else 'not '}for {wanted}", "" if covered else remedy)
    for more in chains(configuration.state_directory / configuration.tls.directory) if configuration.tls.directory else ():
        yield from _certificate(f"certificate {more.parent.name}", more, now)


def _certificate(part: str, path: Path, now: float) -> Iterator[Finding]:
    """When one ends."""
    from smtpplus.observation.watchdog import expiry

    try:
        end = expiry(path)
    except (OSError, ValueError) as fault:
        yield Finding(part, False, f"{path} cannot be read: {fault}", "put the certificate back")
        return
    when = time.strftime("%Y-%m-%d", time.localtime(end))
    if end < now:
        yield Finding(part, False, f"it expired on {when}", "renew it; the new one is used within seconds")
    elif end < now + SOON:
        yield Finding(part, False, f"it expires on {when}", "renew it; the new one is used within seconds")
    else:
        yield Finding(part, True, f"it is good until {when}")


def _names(certificate: x509.Certificate) -> list[str]:
    """The host names that a certificate is for."""
    from cryptography import x509

    try:
        return certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value.get_values_for_type(x509.DNSName)
    except x509.ExtensionNotFound:
        return []


def disk(configuration: Configuration) -> Iterator[Finding]:
    """Room for the queue."""
    found = os.statvfs(configuration.state_directory)
    free, whole = found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize
    good = free > 1024**3 and free > whole / 10
    text = f"{free / 1024**3:.1f} GiB of {whole / 1024**3:.1f} GiB are free under {configuration.state_directory}"
    remedy = "free some space, or move state_directory: below [queue] minimum_free mail is refused"
    yield Finding("disk", good, text, "" if good else remedy)


def mail_log(configuration: Configuration, process: int) -> Iterator[Finding]:
    """Whether the daemon, `process`, can write the mail log; while it does not run, whether who asks can."""
    if configuration.log.mail in ("", "-"):
        yield Finding("mail log", None, "it goes to standard output" if configuration.log.mail else "there is none", "")
        return
    path = configuration.state_directory / configuration.log.mail
    who = f"the daemon, process {process}," if process else "who runs this"
    remedy = "let the daemon's user write it, or name another file with [log] mail; what is not written is lost"
    if path.is_dir():
        yield Finding("mail log", False, f"{path} is a directory", remedy)
        return
    place = path if path.exists() else path.parent
    good = _may_write(place, process) and not os.statvfs(place).f_flag & os.ST_RDONLY
    yield Finding("mail log", good, f"{path} can{'' if good else 'not'} be written by {who}".rstrip(","), "" if good else remedy)


def _may_write(place: Path, process: int) -> bool:
    """Whether `process` may write a file, or make one in a directory; 0: this one."""
    needed = 0o3 if place.is_dir() else 0o2
    if not process:
        return os.access(place, needed)
    said = dict(line.split(":", 1) for line in Path(f"/proc/{process}/status").read_text().splitlines())
    user, groups = int(said["Uid"].split()[1]), {int(group) for group in (*said["Gid"].split(), *said["Groups"].split())}
    found = place.stat()
    bits = found.st_mode >> (6 if found.st_uid == user else 3 if found.st_gid in groups else 0)
    return user == 0 or bits & needed == needed


def clock() -> Iterator[Finding]:
    """Whether something keeps the clock right: dates, schedules and signatures depend on it."""
    try:
        state = ctypes.CDLL(None).adjtimex(ctypes.create_string_buffer(512))
    except (OSError, AttributeError):
        state = -1
    if state < 0:
        yield Finding("clock", None, "it cannot be told whether the clock is kept right")
    elif state == _TIME_ERROR:
        yield Finding(
            "clock", None, "nothing on this machine keeps the clock right", "run an NTP client, such as systemd-timesyncd or chrony"
        )
    else:
        yield Finding("clock", True, "it is synchronized")


def descriptors(configuration: Configuration, process: int) -> Iterator[Finding]:
    """Whether the daemon, `process` (0: it does not run), may open as many connections as the configuration lets it."""
    listeners = sum((each.last - each.first + 1) * len(block.interfaces) for block in configuration.listen for each in block.ports)
    needed = configuration.limits.connections + configuration.delivery.connections + listeners + _SPARE
    limit = resource.prlimit(process, resource.RLIMIT_NOFILE)[1]
    good = limit == resource.RLIM_INFINITY or limit >= needed
    remedy = f"raise it: LimitNOFILE={needed} in the unit of systemd, or ulimit -n {needed}; or lower [limits] connections"
    yield Finding(
        "file descriptors",
        good,
        f"{needed} may be needed, {limit} are allowed {'to the daemon' if process else 'here'}",
        "" if good else remedy,
    )


def own_name(configuration: Configuration) -> Iterator[Finding]:
    """Whether the host name leads here and back (PTR): who receives mail by MX checks that."""
    name = configuration.hostname
    try:
        addresses = sorted({str(found[4][0]) for found in socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)})
    except OSError:
        yield Finding("host name", False, f"{name} has no address in DNS", "publish an A or AAAA record, or correct hostname")
        return
    yield Finding("host name", True, f"{name} is {', '.join(addresses)}")
    for address in addresses:
        if address.startswith("127.") or address == "::1":
            yield Finding("host name", None, f"{name} is this machine alone ({address})", "others need a public address in DNS")
            continue
        try:
            back = socket.gethostbyaddr(address)[0].rstrip(".").lower()
        except OSError:
            back = ""
        remedy = f"let the owner of the address {address} publish a PTR record with {name}"
        text = f"{address} leads back to {back or 'no name'}"
        yield Finding("host name", back == name, text, "" if back == name else remedy)
