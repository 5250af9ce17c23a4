"""What a queued recipient waits for now, what happens next and when, and the command that changes it.

The gates in the order in which they are told: a rule, a schedule, an attempt under way (and who stopped it), a retry, and for what
may go at once a daemon that does not run, a rate, a destination that is left alone, urgent mail, the turn. Pure; the queue's own
view says the state.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

from smtpplus.operation.cli import quoted

if TYPE_CHECKING:
    from smtpplus.queue.selection import Queued
    from smtpplus.queue.standing import Standing


_MORE = {  # what changes a limit
    "user": "smtpplus user edit --rate N --quota N --per-user RATES {}",
    "list": "smtpplus list edit --per-list RATES {}",
    "destination": "[delivery] rate in the configuration",
}


class Gate(msgspec.Struct, frozen=True):
    """Where one recipient waits. `at` is when something happens by itself, seconds since the epoch; None if that is not known."""

    recipient: str
    gate: str  # rule | scheduled | under-way | stopped | retry | daemon | rate | backing-off | preempted | turn
    text: str
    following: str
    at: float | None
    command: str


def gate(queued: Queued, stands: Standing | None, date: Callable[[float], str]) -> Gate:
    """The gate of one recipient; `stands` is None if the daemon does not run."""
    retry = f"smtpplus queue retry --id {queued.name}"
    if queued.state == "held" and queued.rule is not None:
        rule = queued.rule
        until = f"until {date(rule.expires_at)}" if rule.expires_at else "until the rule is lifted"
        made = f"made by {rule.who} on {date(rule.created_at)}" if rule.who else f"made on {date(rule.created_at)}"
        lift = f"smtpplus queue release --rule {rule.id}"
        return Gate(queued.address, "rule", f"held by {rule.name}, {made}", f"it goes {until}", rule.expires_at or None, lift)
    then = f", and is then held by {queued.rule.name}" if queued.rule is not None else ""
    if queued.state == "scheduled":
        change = f"smtpplus queue reschedule --id {queued.name} --at TIME"
        return Gate(queued.address, "scheduled", f"scheduled for {date(queued.due)}", f"it goes then{then}", queued.due, change)
    if queued.state == "trying":
        return _trying(queued, stands, date)
    if queued.state == "deferred":
        text = f"waits for attempt {queued.attempts + 1} after: {queued.reply}"
        return Gate(queued.address, "retry", text, f"it is tried again at {date(queued.due)}{then}", queued.due, retry)
    return _ready(queued, stands, retry, date)


def _trying(queued: Queued, stands: Standing | None, date: Callable[[float], str]) -> Gate:
    pause = f"smtpplus queue pause --id {queued.name}"
    if stands is None:
        text = f"attempt {queued.attempts} was under way when the daemon ended"
        return Gate(
            queued.address, "daemon", text, f"it is tried again at {date(queued.due)}, once the daemon runs", queued.due, "start smtpplus"
        )
    for each in stands.stopped:
        if each.id == queued.name and each.destination == queued.destination:
            cause = each.cause if each.cause.startswith("rule") else f"urgent message {each.cause}"
            text = f"attempt {queued.attempts} is under way and stopped by {cause}"
            return Gate(queued.address, "stopped", text, "it goes on when that is over, or was stopped for max_pause in all", None, pause)
    text = f"attempt {queued.attempts} is under way at {queued.destination}"
    return Gate(queued.address, "under-way", text, "the answer of the next hop decides", None, pause)


def _ready(queued: Queued, stands: Standing | None, retry: str, date: Callable[[float], str]) -> Gate:
    if stands is None:
        return Gate(queued.address, "daemon", "may go, but the daemon does not run", "it goes when the daemon runs", None, "start smtpplus")
    for each in stands.backing_off:
        if each.destination == queued.destination:
            text = f"{each.destination} did not answer {each.failures} time(s) in a row and is left alone until {date(each.until)}"
            return Gate(queued.address, "backing-off", text, f"it is tried at {date(each.until)}", each.until, retry)
    for wait in stands.over_rate:
        if wait.name == {"user": queued.user, "list": queued.list, "destination": queued.destination}[wait.kind] and not queued.attempts:
            limit = f"limit of {wait.limit}" if wait.limit else "rate or quota"
            text = f"the {limit} of {wait.kind} {wait.name} is used up until {date(wait.until)}"
            return Gate(queued.address, "rate", text, "it goes then by itself", wait.until, _MORE[wait.kind].format(quoted(wait.name)))
    look = "smtpplus status"
    if stands.preempting is not None and queued.level > stands.preempting:
        text = f"urgent mail goes first: nothing below level {stands.preempting} starts"
        return Gate(
            queued.address, "preempted", text, "it goes when the urgent mail is sent", None, "smtpplus queue list --level 1 --level 2"
        )
    text = f"waits for its turn at level {queued.level}; {stands.ready} are ready and {stands.running} under way"
    return Gate(queued.address, "turn", text, "it goes when those before it are on their way", None, look)
