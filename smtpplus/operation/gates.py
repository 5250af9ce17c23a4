"""What a queued recipient waits for now, what happens next and when, and the command that changes it.

The gates in the order in which they are told: a rule, a schedule, an attempt under way (and who stopped it), a retry, and for what
may go at once a daemon that does not run, a rate, a destination that is left alone, urgent mail, a destination that is full, the
slots of the house, the turn. Pure; the queue's own view says the state, the daemon's last word (a second old at most) the limits.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import msgspec

from smtpplus.mail.command_line import quoted

if TYPE_CHECKING:
    from smtpplus.queue.rates import OverRate
    from smtpplus.queue.rules import Rule
    from smtpplus.queue.selection import Queued
    from smtpplus.queue.standing import Crowded, Slots, Standing


_MORE = {  # what changes a limit
    "user": "smtpplus user edit --rate N --quota N --per-user RATES {}",
    "list": "smtpplus list edit --per-list RATES {}",
    "destination": "[delivery] rate in the configuration",
}


_NAMED = 3  # urgent messages named


class Gate(msgspec.Struct, frozen=True):
    """Where one recipient waits. `at` is when something happens by itself, seconds since the epoch; None if that is not known."""

    recipient: str
    # rule | scheduled | under-way | stopped | retry | daemon | rate | backing-off | preempted | destination-full | connections |
    # reserved | turn
    gate: str
    text: str
    following: str
    at: float | None
    command: str


class Around(msgspec.Struct, frozen=True):
    """What else is known. `urgent` are the queue IDs of urgent mail that goes first, the oldest first; `stopped_until` is by when a stopped
    transfer to a destination goes on at the latest; `max_pause` for how many seconds urgent mail stops all other at most. The recipients
    `under_way` are tried anew now; an attempt at those `cut_off` ended with an earlier process of the daemon. For waiting long the message
    has `gained` so many levels."""

    urgent: Sequence[str] = ()
    stopped_until: Mapping[str, float] = {}
    max_pause: float = 30.0
    under_way: Collection[str] = ()
    cut_off: Collection[str] = ()
    gained: int = 0


NOTHING = Around()


def gate(queued: Queued, stands: Standing | None, date: Callable[[float], str], around: Around = NOTHING) -> Gate:
    """The gate of one recipient; `stands` is None if the daemon does not run."""
    found = _gate(queued, stands, date, around)
    if stands is None and found.gate != "daemon":
        return msgspec.structs.replace(found, following=f"{found.following}, if the daemon runs then: now it does not")
    return found


def _gate(queued: Queued, stands: Standing | None, date: Callable[[float], str], around: Around) -> Gate:
    if queued.state == "held" and queued.rule is not None:
        return _held(queued, date)
    lasting = [rule for rule in _rules(queued) if not rule.expires_at or rule.expires_at >= queued.due]
    then = f", and is then held by {_all(rule.name for rule in lasting)}" if lasting else ""
    first = f"{_release(lasting)}, then " if lasting else ""
    if queued.state == "scheduled":
        change = f"{first}smtpplus queue reschedule --id {queued.name} --at TIME"
        return Gate(queued.address, "scheduled", f"scheduled for {date(queued.due)}", f"it goes then{then}", queued.due, change)
    if queued.state == "trying" and queued.address in around.cut_off:
        text = f"attempt {queued.attempts} was cut off when the daemon ended"
        change = f"{first}smtpplus queue retry --id {queued.name}"
        return Gate(queued.address, "retry", text, f"it is tried again at {date(queued.due)}{then}", queued.due, change)
    if queued.state == "trying" or (queued.state == "deferred" and queued.address in around.under_way):
        return _trying(queued, stands, date, around)
    if queued.state == "deferred":
        text = f"waits for attempt {queued.attempts + 1} after: {queued.reply}"
        return Gate(
            queued.address,
            "retry",
            text,
            f"it is tried again at {date(queued.due)}{then}",
            queued.due,
            f"{first}smtpplus queue retry --id {queued.name}",
        )
    return _ready(queued, stands, date, around)


def _rules(queued: Queued) -> Sequence[Rule]:
    return queued.rules or ((queued.rule,) if queued.rule is not None else ())


def _release(rules: Iterable[Rule]) -> str:
    return "smtpplus queue release " + " ".join(f"--rule {rule.id}" for rule in rules)


def _all(names: Iterable[str]) -> str:
    """Names as people say them."""
    *others, last = names
    return f"{', '.join(others)} and {last}" if others else last


def _held(queued: Queued, date: Callable[[float], str]) -> Gate:
    """By which rules: it goes when the last of them has ended."""
    rules = _rules(queued)
    made = _all(
        f"{rule.name}, made by {rule.who} on {date(rule.created_at)}" if rule.who else f"{rule.name}, made on {date(rule.created_at)}"
        for rule in rules
    )
    endless = [rule for rule in rules if not rule.expires_at]
    until = None if endless else max(rule.expires_at for rule in rules)
    if until is not None:
        goes = f"it goes at {date(until)}, when {'the rule ends' if len(rules) == 1 else 'the last of these rules ends'}"
    elif len(rules) == 1:
        goes = "it goes when the rule is lifted"
    else:
        goes = f"it goes when {_all(f'rule {rule.id}' for rule in endless)} {'is' if len(endless) == 1 else 'are'} lifted"
        last = max(rule.expires_at for rule in rules)
        goes += f", and the others have ended, by {date(last)} at the latest" if last else ""
    return Gate(queued.address, "rule", f"held by {made}", goes, until, _release(rules))


def _trying(queued: Queued, stands: Standing | None, date: Callable[[float], str], around: Around) -> Gate:
    pause = f"smtpplus queue pause --id {queued.name}"
    if stands is None:
        text = f"attempt {queued.attempts} was under way when the daemon ended"
        return Gate(
            queued.address, "daemon", text, f"it is tried again at {date(queued.due)}, once the daemon runs", queued.due, "start smtpplus"
        )
    for each in stands.stopped:
        if each.id == queued.name and each.destination == queued.destination:
            return _stopped(queued, each.cause, around.stopped_until.get(each.destination), date)
    text = f"attempt {queued.attempts} is under way at {queued.destination}"
    following = "the answer of the next hop decides"
    rules = _rules(queued)
    if not rules:
        return Gate(queued.address, "under-way", text, following, None, pause)
    rule = next((rule for rule in rules if rule.running == "stop"), rules[0])
    if rule.running == "stop":
        text += f"; {rule.name} does not stop it: its end is sent, or it was stopped for [priority] max_pause, or the rule is a second old"
    else:
        text += f"; {rule.name} lets it finish"
    held = "that rule" if len(rules) == 1 else _all(f"rule {rule.id}" for rule in rules)
    return Gate(queued.address, "under-way", text, f"{following}; what is to be tried again is held by {held}", None, _release(rules))


def _stopped(queued: Queued, cause: str, until: float | None, date: Callable[[float], str]) -> Gate:
    by_rule = re.match(r"rule (\d+)", cause)
    by, over = (cause, "the rule ends") if by_rule else (f"urgent message {cause}", "that is sent")
    stopping = [rule for rule in _rules(queued) if rule.running == "stop"]
    if len(stopping) > 1 or (stopping and not by_rule):
        over += f", and {_all(f'rule {rule.id}' for rule in stopping)} no more stop{'s' if len(stopping) == 1 else ''} it"
    change = f"smtpplus queue release --rule {by_rule[1]}" if by_rule else f"smtpplus queue pause --id {quoted(cause)}"
    if stopping:
        change = _release(stopping) if by_rule else f"{change}, and {_release(stopping)}"
    latest = f"at {date(until)} at the latest" if until is not None else "after max_pause at the latest"
    return Gate(
        queued.address,
        "stopped",
        f"attempt {queued.attempts} is under way and stopped by {by}",
        f"it goes on when {over}, {latest}",
        until,
        change,
    )


def _ready(queued: Queued, stands: Standing | None, date: Callable[[float], str], around: Around) -> Gate:
    if stands is None:
        return Gate(queued.address, "daemon", "may go, but the daemon does not run", "it goes when the daemon runs", None, "start smtpplus")
    for each in stands.backing_off:
        if each.destination == queued.destination:
            text = f"{each.destination} did not answer {each.failures} time(s) in a row and is left alone until {date(each.until)}"
            retry = f"smtpplus queue retry --id {queued.name}"
            return Gate(queued.address, "backing-off", text, f"it is tried at {date(each.until)}", each.until, retry)
    wait = over_rate(queued, stands)
    if wait is not None:
        change = _MORE[wait.kind].format(quoted(wait.name))
        return Gate(queued.address, "rate", used_up(wait, date), "it goes then by itself", wait.until, change)
    if stands.preempting is not None and max(1, queued.level - around.gained) > stands.preempting:
        return _preempted(queued, stands.preempting, around)
    full = _full(queued, stands) if stands.slots is not None else None
    if full is not None:
        return full
    text = f"waits for its turn at level {queued.level}; {stands.ready} are ready and {stands.running} under way"
    if stands.destinations_backing_off > len(stands.backing_off):
        text += f", and {stands.destinations_backing_off} destinations are left alone, as they did not answer"
    return Gate(queued.address, "turn", text, "it goes when those before it are on their way", None, "smtpplus status")


def over_rate(queued: Queued, stands: Standing) -> OverRate | None:
    """The limit that a recipient meets which is used up."""
    if queued.attempts:
        return None
    names = {"user": queued.user, "list": queued.list, "destination": queued.destination}
    return next((wait for wait in stands.over_rate if wait.name == names[wait.kind]), None)


def used_up(wait: OverRate, date: Callable[[float], str]) -> str:
    """What `over_rate` found, in words."""
    limit = f"limit of {wait.limit}" if wait.limit else "rate or quota"
    return f"the {limit} of {wait.kind} {wait.name} is used up until {date(wait.until)}"


def _preempted(queued: Queued, level: int, around: Around) -> Gate:
    """Urgent mail goes first: which."""
    urgent = around.urgent
    named = ", ".join(urgent[:_NAMED]) + (f" and {len(urgent) - _NAMED} more" if len(urgent) > _NAMED else "")
    by = f"urgent message{'s' if len(urgent) > 1 else ''} {named}" if urgent else "urgent mail"
    text = f"preempted by {by}: nothing below level {level} starts"
    change = f"smtpplus queue pause --id {quoted(urgent[0])}" if len(urgent) == 1 else "smtpplus queue list --level 1 --level 2"
    following = f"it goes when the urgent mail is sent, in {around.max_pause:.0f} s at the latest"
    return Gate(queued.address, "preempted", text, following, None, change)


def _full(queued: Queued, stands: Standing) -> Gate | None:
    """The limit of attempts under way that stands before it: that of its destination, or that of the house."""
    slots = stands.slots
    assert slots is not None
    urgent = queued.level in slots.preempting
    there = next((each for each in stands.crowded if each.destination == queued.destination), None)
    if there is not None and there.running >= there.window + (there.reserved if urgent else 0):
        return _destination_full(queued, there, slots if not urgent else None)
    taken = f"{stands.running} attempts are under way, of {slots.connections} ([delivery] connections)"
    change = f"raise [delivery] connections, now {slots.connections}, in the configuration, and restart smtpplus"
    if stands.running >= slots.connections:
        return Gate(queued.address, "connections", f"all slots are taken: {taken}", "it goes when some of these have ended", None, change)
    if not urgent and stands.running >= slots.connections - slots.reserved:
        text = f"{taken}, {slots.reserved} of these for {_levels(slots)} alone ([delivery] reserved_for_preempting)"
        return Gate(queued.address, "reserved", text, "it goes when some of these have ended", None, change)
    if not urgent and there is not None and stands.running >= slots.connections - slots.reserved - slots.spare:
        text = f"{taken}, {slots.spare} of these for destinations that have none, and {there.destination} has {there.running}"
        return Gate(queued.address, "reserved", text, "it goes when some of these have ended", None, change)
    return None


def _levels(slots: Slots) -> str:
    return f"level{'s' if len(slots.preempting) > 1 else ''} {' and '.join(map(str, slots.preempting))}"


def _destination_full(queued: Queued, there: Crowded, slots: Slots | None) -> Gate:
    """`slots` if some of the limit are kept for others."""
    limit = f"[delivery] per_destination, now {there.widest + there.reserved}"
    text = f"{there.running} attempts at {there.destination} are under way, and it takes {there.window} at a time"
    if there.window < there.widest:
        text += f" so far: each success allows one more, each failure half as many, up to {limit}"
        change = "[delivery] initial_per_destination in the configuration says with how many it begins; restart smtpplus after a change"
    else:
        kept = f", {there.reserved} of these for {_levels(slots)} alone" if slots is not None and there.reserved else ""
        text += f" ({limit}{kept})"
        change = f"raise {limit}, in the configuration, and restart smtpplus"
    return Gate(queued.address, "destination-full", text, "it goes when one of these has ended", None, change)
