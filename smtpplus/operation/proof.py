"""Asking for a verification: a token is mailed through the relay itself, or the DNS record that is wanted is named and looked for.

DNS is asked outside of transactions, so that a slow server never holds up the daemon's writer; what it said is written afterwards, if
the entry is still there. The mail is posted in the transaction that makes its token.
"""

from __future__ import annotations

import ipaddress
import time
from email.utils import make_msgid
from typing import TYPE_CHECKING, Any, Literal, Sequence

import click
import msgspec

from smtpplus.accounts import letter, store, verification
from smtpplus.accounts.user import Sender, User
from smtpplus.mail.command_line import quoted
from smtpplus.operation import txt
from smtpplus.operation.cli import Operation, operator
from smtpplus.queue import outbox

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from smtpplus.config import Configuration

Status = Literal["mailed", "verified", "publish", "foreign", "fault"]


class Asked(msgspec.Struct, frozen=True, omit_defaults=True):
    """What became of asking for one entry. "publish": no record is there; "foreign": only others' are; "fault": DNS does not answer."""

    user: str
    sender: str
    status: Status
    expires_at: float | None = None  # of the token mailed
    record: str = ""  # the name where the TXT record belongs, and
    value: str = ""  # its text
    fault: str = ""
    since: float | None = None  # verified already, before this was asked

    @property
    def refused(self) -> bool:
        """Whether this is a failure, rather than something that is under way."""
        return self.status in ("foreign", "fault")


def ask(operation: Operation, name: str, wanted: Sequence[Sender]) -> list[Asked]:
    """Ask for the verification of these entries of a user, in their order. AccountError inside becomes a refusal, and nothing is asked."""
    configuration = operation.configuration
    asked: dict[tuple[str, str], Asked] = {}
    expected: list[tuple[Sender, str, str]] = []
    with operation.transaction() as connection:
        user = store.get_user(connection, name)
        chosen = verification.of_user(user, wanted)
        for entry in chosen:
            if entry.kind == "address":
                asked[entry.kind, entry.value] = _mail(connection, configuration, user, entry)
            else:
                record = verification.record_name(entry)
                expected.append((entry, record, verification.challenge(connection, user, entry, now=time.time())))
    for entry, record, value in expected:
        asked[entry.kind, entry.value] = _look(operation, user, entry, record, value)
    return [asked[entry.kind, entry.value] for entry in chosen]


def _mail(connection: Connection, configuration: Configuration, user: User, entry: Sender) -> Asked:
    now = time.time()
    lifetime = configuration.senders.verification
    token = verification.issue(connection, user, entry, now=now, lifetime=lifetime, by=operator())
    claim = verification.Claim(user, entry, now + lifetime)
    content = letter.compose(
        claim,
        token,
        page=page(configuration, token),
        hostname=configuration.hostname,
        from_address=configuration.alerts.from_,
        message_id=make_msgid(domain=configuration.hostname),
        now=now,
    )
    outbox.post(connection, content, [entry.value], now=now)
    return Asked(user.name, str(entry), "mailed", expires_at=claim.expires_at)


def _look(operation: Operation, user: User, entry: Sender, record: str, value: str) -> Asked:
    asked = Asked(user.name, str(entry), "publish", record=record, value=value, since=entry.verified_at if entry.verified else None)
    try:
        answer = verification.judge(txt.look_up(record, operation.configuration.dns.servers), value)
    except txt.LookupFault as fault:
        return msgspec.structs.replace(asked, status="fault", fault=str(fault))
    if answer != "proved":
        return msgspec.structs.replace(asked, status="foreign" if answer == "foreign" else "publish")
    with operation.transaction() as connection:
        now = time.time()
        current = store.get_user(connection, user.name)
        wanted = verification.challenge(connection, current, entry, now=now)
        if wanted != value:  # the user was moved to another list meanwhile
            return msgspec.structs.replace(asked, value=wanted)
        verification.verified(connection, current, [entry], "dns", now=now, by=operator())
    return msgspec.structs.replace(asked, status="verified", since=None)


def page(configuration: Configuration, token: str) -> str:
    """The web address where a token can be confirmed; "" if there is none."""
    base = configuration.http.public_url
    if not base and configuration.http.listen is not None:
        host, port = configuration.http.listen
        address = ipaddress.ip_address(host)
        shown = configuration.hostname if address.is_unspecified else f"[{host}]" if address.version == 6 else host
        base = f"http://{shown}:{port}"
    return f"{base}/confirm/{token}" if base else ""


def say(asked: Sequence[Asked]) -> None:
    """Tell a person what to do next: progress on standard output, what went wrong on standard error."""
    for each in asked:
        for line in _SAY[each.status](each):
            click.echo(line, err=each.refused)


def as_json(asked: Sequence[Asked]) -> list[dict[str, Any]]:
    """The same for programs."""
    return [msgspec.to_builtins(each) for each in asked]


def _mailed(each: Asked) -> list[str]:
    until = time.strftime("%Y-%m-%d %H:%M %Z", time.localtime(each.expires_at))
    return [
        f"A token was mailed to {each.sender}. It is good until {until}: on the page the mail names, or with `smtpplus sender confirm`."
    ]


def _publish(each: Asked) -> list[str]:
    if each.since is not None:
        lines = [f"{each.sender} stays verified, but its DNS record is not there any more. Publish it again:"]
    else:
        lines = [f"Not verified yet. Publish this DNS record, then run `smtpplus sender verify {quoted(each.user, each.sender)}` again:"]
    return [*lines, _record(each)]


def _foreign(each: Asked) -> list[str]:
    return [
        f"Not verified: {each.record} has a record of another list or another server, and that proves nothing for user {each.user}. "
        "Publish this one beside it, then ask again:",
        _record(each),
    ]


def _fault(each: Asked) -> list[str]:
    return [f"Not verified: {each.fault}. Ask again when DNS answers; the record it must have:", _record(each)]


def _record(each: Asked) -> str:
    return f'{each.record}. IN TXT "{each.value}"'


_SAY = {
    "mailed": _mailed,
    "verified": lambda each: [f"{each.sender} is verified for user {each.user}: its DNS record is there."],
    "publish": _publish,
    "foreign": _foreign,
    "fault": _fault,
}
