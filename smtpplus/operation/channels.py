"""Whether alerts reach anybody: what the webhook is owed and why, and alert mail that waits or failed. Functions over a connection.

A channel that fails is told where the operator looks by himself, since it cannot be told by the channel. Alert mail is known by its
Message-ID in the history; without a history only the webhook is looked at.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from smtpplus.mail.command_line import quoted
from smtpplus.operation.cli import date

if TYPE_CHECKING:
    from sqlalchemy import Connection

LATELY = 86_400.0  # seconds for which alert mail that failed is told
PATIENCE = 60.0  # seconds that alert mail may wait before that is worth a word


def failing(connection: Connection, now: float, *, past: bool = True) -> Iterator[str]:
    """A sentence for each channel that fails; without the `past` only of what waits, which costs less."""
    yield from _webhook(connection)
    yield from _waiting(connection, now)
    if past:
        yield from _failed(connection, now)


def _webhook(connection: Connection) -> Iterator[str]:
    from smtpplus.observation import owed

    found = owed.state(connection)
    if found.why:
        wait = "waits" if found.waiting == 1 else "wait"
        waits = f"; {found.waiting} {wait} for it since {date(found.since)}, tried up to {found.tried} times" if found.waiting else ""
        yield f"the webhook did not take an alert at {date(found.at)}: {found.why.rstrip('.')}{waits}"


def _waiting(connection: Connection, now: float) -> Iterator[str]:
    from sqlalchemy import func, select

    from smtpplus.observation.letters import MESSAGE_ID
    from smtpplus.observation.record import first_id
    from smtpplus.storage.schema import history, recipients

    c, h = recipients.c, history.c
    of_alerts = select(h.id).where(h.id == c.message_id, h.message_id.startswith(MESSAGE_ID)).exists()
    mine = (c.user == "", c.message_id < first_id(now - PATIENCE), of_alerts)
    count, reply = connection.execute(select(func.count(), func.max(c.reply)).select_from(recipients).where(*mine)).one()
    if count:
        why = f", lately after: {reply}" if reply else ""
        yield (f"{count} alerts by mail wait" if count > 1 else "1 alert by mail waits") + why


def _failed(connection: Connection, now: float) -> Iterator[str]:
    from sqlalchemy import func, or_, select

    from smtpplus.observation.letters import MESSAGE_ID
    from smtpplus.observation.record import first_id
    from smtpplus.storage.schema import history, history_steps

    h, s = history.c, history_steps.c
    later = select(s.message_id).where(s.message_id == h.id, s.story.contains('["Failed",', autoescape=True)).exists()
    failed = or_(h.story.contains('["Failed",', autoescape=True), later)
    lately = (h.id >= first_id(now - LATELY), h.user == "", h.message_id.startswith(MESSAGE_ID), failed)
    count, last = connection.execute(select(func.count(), func.max(h.message_id)).where(*lately)).one()
    if count:
        yield f"{count} alert{'' if count == 1 else 's'} by mail failed within a day; smtpplus explain {quoted(last)} says why"
