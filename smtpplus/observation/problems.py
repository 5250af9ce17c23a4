"""What can go wrong, by kind, and which event is a sign of what: pure.

The kinds are the reasons of the closed list and a few more about notifications and the server itself. Each has the way in which it
is told unless somebody sets another: `now`, `digest`, or `off` for what is a client's slip of the tongue. Problems that are equal
in kind, list and `what` are one problem, however often they come.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import msgspec

from smtpplus import events
from smtpplus.events import Event
from smtpplus.mail.command_line import quoted
from smtpplus.mail.reasons import BAD_MAILBOX, REASONS

Mode = Literal["off", "now", "digest"]
MODES: tuple[Mode, ...] = ("off", "now", "digest")
FAILED_LOGINS = 20  # from one address within a digest's time, until they are a problem of their own

MORE = {  # kind: what it means, and its mode
    "bounce": ("a sender was told that mail could not be delivered, and the reason is no problem of its own", "digest"),
    "delay": ("a sender was told that mail is delayed", "digest"),
    "failed_logins": ("many logins from one address failed", "now"),
    "fault": ("something of ours went wrong and was survived", "now"),
    "queue_growing": ("more mail comes in than goes out", "now"),
    "disk_filling": ("the file system of the state directory is nearly full", "now"),
    "certificate_expiring": ("the certificate expires soon, or has expired", "now"),
    "port_taken": ("another program holds a port that smtpplus should listen on", "now"),
    "mail_log_unwritable": ("the mail log cannot be written; its lines are lost, and mail goes on", "now"),
    "database_slow": ("commits take long, and clients wait for each", "now"),
}
_NOW = frozenset(
    (
        "domain_not_authorized",
        "address_not_authorized",
        "near_domain",
        "sender_pending",
        "sender_not_verified",
        "inactive_user",
        "inactive_unverified",
        "trusted_user",
        "storage_fault",
        "content_lost",
        "maildir_failed",
        "peer_login_failed",
        "source_unfit",
        "self_loop",
        "no_route",
        "loop",
        "expired",
        "local_fault",
        "unexpected",
    )
)
_OFF = frozenset(
    (
        *("delivered", "abandoned", "shutting_down", "idle", "auth_cancelled", "auth_required", "tls_required"),
        # Passing by themselves, or told as a delay or an expiry when they do not:
        *(
            "connection_refused",
            "session_refused",
            "connection_timed_out",
            "connection_lost",
            "dns_failed",
            "tls_unavailable",
            "peer_deferred",
        ),
    )
)


_COMMANDS = {  # reason: the command that changes it
    "wrong_password": "smtpplus user reset-password {user}",
    "inactive_user": "smtpplus user activate {user}",
    "inactive_unverified": "smtpplus sender verify {user} ADDRESS-OR-DOMAIN, then smtpplus user activate {user}",
    "domain_not_authorized": "smtpplus sender add --verify {user} {domain}",
    "address_not_authorized": "smtpplus sender add --verify {user} {sender}",
    "near_domain": "smtpplus sender add --verify {user} {domain}",
    "sender_pending": "smtpplus sender verify {user} {sender}",
    "sender_not_verified": "smtpplus sender add --verify {user} {sender}",
}

_AFTER_NOTICE = {
    "bounce": "it is not tried again; when what stopped it is mended, the sender has to send it anew",
    "delay": "none is needed, as it is tried again; smtpplus queue list shows what waits",
}
_SENT = "is not authorized, and was sent because of alert mode"


class Facts(msgspec.Struct, frozen=True):
    """One example of a problem, for people."""

    who: str  # user and client, or the server itself
    what: str
    why: str
    remedy: str
    reference: str = ""  # what `explain` takes
    user: str = ""


class Problem(msgspec.Struct, frozen=True):
    """What an event is a sign of. `list` is None where the user's list is still to be looked up, "" for the server's own."""

    kind: str
    list: str | None
    user: str
    what: str  # with kind and list: which problem it is
    facts: Facts


def all_kinds() -> dict[str, str]:
    """Every kind with what it means."""
    reasons = {code: reason.explanation for code, reason in REASONS.items() if code != "delivered"}
    return {**reasons, **{kind: meaning for kind, (meaning, _) in MORE.items()}}


def default_mode(kind: str) -> Mode:
    """How a kind is told if nobody set anything."""
    if kind in MORE:
        return "digest" if MORE[kind][1] == "digest" else "now"
    reason = REASONS.get(kind)
    if kind in _OFF or reason is None or reason.enhanced.startswith(("4.5.", "5.5.")) or reason.reply_code == 421:
        return "off"
    return "now" if kind in _NOW else "digest"


def _refused(event: events.Refused | events.WouldRefuse) -> Problem:
    if event.reason == "trusted_user":  # of the configuration, and not of the client
        who, what = f"a client at {event.client.rpartition(':')[0]}", "mail from a trusted network was refused"
        facts = Facts(who, what, event.reply, _remedy(event.reason), getattr(event, "reference", ""))
        return Problem(event.reason, "", "", event.reply[:400], facts)
    let_through = isinstance(event, events.WouldRefuse)
    address, in_header = about(event.sender, event.reply)
    sender = address or ("an address that is none" if event.reason == BAD_MAILBOX.code else "the null sender")
    reference = getattr(event, "reference", "")
    host = event.client.rpartition(":")[0]
    who = f"user {event.user} at {host}" if event.user else f"a client at {host}"
    facts = Facts(
        who,
        f"mail {'that says From' if in_header else 'from'} {sender} {_SENT if let_through else 'was refused'}",
        event.reply,
        _remedy(event.reason, event.user, event.sender, event.reply),
        reference,
        event.user,
    )
    return Problem(
        event.reason,
        None if event.user else "",
        event.user,
        f"{event.user or host} {event.sender}{' (sent)' if let_through else ''}"[:400],
        facts,
    )


def _login(event: events.AuthenticationFailed) -> Problem:
    host = event.client.rpartition(":")[0]
    why = REASONS[event.reason].explanation if event.reason in REASONS else event.reason
    what = f"the login failed ({event.mechanism}, port {event.port})"
    if event.reason == "unknown_user":  # whoever guesses names makes one problem, and not one for each
        facts = Facts(f"a client at {host}", f"{what} as {event.user or 'nobody'}", why, _remedy(event.reason), event.reference)
        return Problem(event.reason, "", "", f"at {host}", facts)
    facts = Facts(f"user {event.user} at {host}", what, why, _remedy(event.reason), event.reference, event.user)
    return Problem(event.reason, None, event.user, f"{event.user} at {host}", facts)


def _failed(event: events.Failed) -> Problem:
    facts = Facts(
        f"user {event.user}", f"mail to {event.recipient} failed for good", event.reply, _remedy(event.reason), event.id, event.user
    )
    return Problem(event.reason, event.list, event.user, f"{event.user} to {event.destination}", facts)


def _deferred(event: events.Deferred) -> Problem:
    """Of the destination, not of the message: however many wait for it, they wait for the same."""
    facts = Facts(
        f"the next hop {event.peer or event.destination}",
        f"mail to {event.destination} is put off",
        event.reply,
        _remedy(event.reason),
        event.id,
    )
    return Problem(event.reason, "", "", f"put off: {event.destination}"[:400], facts)


def _bounced(event: events.Bounced) -> Problem | None:
    if event.kind not in ("failed", "delayed"):
        return None
    kind = "bounce" if event.kind == "failed" else "delay"
    facts = Facts(
        f"user {event.user}",
        f"{event.to} was told about message {event.id}",
        MORE[kind][0],
        _AFTER_NOTICE[kind],
        event.id,
        event.user,
    )
    return Problem(kind, event.list, event.user, f"{event.user} {event.to}", facts)


def _trouble(event: events.Trouble) -> Problem:
    return Problem(event.kind, "", "", event.what, Facts("the server", event.what, event.why, event.remedy))


def _fault(event: events.Fault) -> Problem:
    facts = Facts("the server", event.what, MORE["fault"][0], "look into the log of the daemon")
    return Problem("fault", "", "", event.what[:400], facts)


def failed_logins(host: str, count: int) -> Problem:
    """Many failed logins from one address."""
    what, remedy = f"{count} logins failed, or more by now", "if nobody there is yours, keep it out by a firewall"
    return Problem("failed_logins", "", "", host, Facts(f"clients at {host}", what, MORE["failed_logins"][0], remedy))


def about(sender: str, reply: str) -> tuple[str, bool]:
    """The address that a refusal of an author is about, and whether it stands in the header; else `sender`, that of the envelope."""
    address = reply.partition(" The header field ")[2].partition(" ")[2].partition(" is not ")[0]
    return (address, True) if "@" in address else (sender, False)


def command(reason: str, user: str, sender: str, reply: str = "") -> str:
    """The command that lets mail refused for `reason` with `reply` through, "" if none does. A shell reads it as it is meant.

    Of the header, a single address is authorized and never its domain: it may be that of a stranger who filled in a form (A13).
    """
    address, in_header = about(sender, reply)
    template = _COMMANDS.get(reason, "") if user else ""
    if in_header and reason == "domain_not_authorized":
        template = _COMMANDS["address_not_authorized"]
    named = {"user": user, "sender": address, "domain": address.rpartition("@")[2]}
    return template.format_map({name: quoted(value) for name, value in named.items()})


def advice(reason: str, reply: str) -> str:
    """What to try before the command, if anything."""
    if reason in {"domain_not_authorized", "address_not_authorized", "sender_not_verified"} and about("", reply)[1]:
        return "an online form puts its visitor's address in Reply-To; if this one is the user's own, authorize it"
    return ""


def _remedy(reason: str, user: str = "", sender: str = "", reply: str = "") -> str:
    """The remedy of a reason; where it needs details that events do not have, the command that carries it out."""
    known = REASONS.get(reason)
    if known is None:
        return ""
    if "{" not in known.remedy:
        return known.remedy
    return ": ".join(part for part in (advice(reason, reply), command(reason, user, sender, reply)) if part)


SIGNS: dict[type[Event], Callable[[Any], Problem | None]] = {
    events.Refused: _refused,
    events.WouldRefuse: _refused,
    events.AuthenticationFailed: _login,
    events.Failed: _failed,
    events.Deferred: _deferred,
    events.Bounced: _bounced,
    events.Trouble: _trouble,
    events.Fault: _fault,
}
