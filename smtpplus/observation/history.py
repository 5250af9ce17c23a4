"""The history: what became of each message, and what was refused, for `explain` and the statistics.

An observer gathers for a quarter of a second and hands the rows to the writer as prepared statements, so that they ride in the
group commits of the mail itself. A message whose whole life falls into one batch is one row; what happens later is one more row for
each batch in which something happens. An attempt shorter than a second is told by its outcome alone. Rows older than `kept` are
deleted in small steps, except those of messages that still wait; what they add up to is kept (observation.sums).

Invariant: history follows mail and never holds it up. A batch that cannot be written is tried once more and then dropped, which the
log says; the last quarter of a second is lost with the process. A storm of refusals is bounded, and its counts are exact: beyond
SEPARATE in a batch, equal ones share a row that counts them, and beyond DIFFERENT such rows all of one reason and user do. A refusal
without a reference is kept if it concerns a user, and shares a row from the first.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import msgspec
from sqlalchemy import Column, ColumnElement, Connection, delete, exists, func, select
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from smtpplus.events import Accepted, AuthenticationFailed, Bounced, Delivered, Event, Failed, Refused, RefusedMore, Started, WouldRefuse
from smtpplus.events import Deferred as Delayed
from smtpplus.mail.envelope import parse_queue_id
from smtpplus.mail.reasons import UNKNOWN_USER
from smtpplus.observation import marks, story, sums
from smtpplus.observation.folded import Folded
from smtpplus.storage.database import Database
from smtpplus.storage.schema import (
    history,
    history_steps,
    message_ids,
    recipients,
    refusals,
)
from smtpplus.storage.statement import Row, Statement
from smtpplus.storage.writes import INSERT_HISTORY, INSERT_HISTORY_STEPS, INSERT_MESSAGE_IDS, INSERT_REFUSAL

GATHER = 0.25  # seconds from an event to the writer
SHORT = 1.0  # seconds: an attempt that takes longer is told when it starts, too
AGAIN = 5.0  # seconds until a batch that failed is tried once more
PRUNE = 60.0  # seconds between two looks for what is too old
PAGE = 1_000  # rows deleted at once; a full page is followed by the next with the next batch
SEPARATE = 250  # refusals of one batch with rows of their own
DIFFERENT = 250  # rows of one batch for the others
PARTINGS = frozenset(("idle", "shutting_down"))  # refusals that end a connection on which nothing was asked
LET_THROUGH = 1_000  # sessions whose message alert mode has let through, and which is not accepted yet

Steps = list[tuple[Statement, Row]]
_encode = msgspec.json.Encoder().encode


class History:
    """Subscribe it to `History.kinds`; `start` it once the database is open, `close` it before the database is."""

    _log = Logger()
    kinds: tuple[type[Event], ...] = (Accepted, Refused, RefusedMore, AuthenticationFailed, WouldRefuse, *story.kinds())

    def __init__(
        self,
        database: Database,
        clock: IReactorTime,
        *,
        kept: float,
        now: Callable[[], float],
        new_id: Callable[[], int],
        folded: Folded,
    ) -> None:
        self._database = database
        self._clock = clock
        self._kept = kept
        self._now = now
        self._new_id = new_id
        self._counted_with = folded
        self._accepted: dict[str, Accepted] = {}
        self._stories: dict[str, list[story.Chapter]] = {}
        self._started: dict[tuple[str, str], Started] = {}  # attempts younger than SHORT, by message and destination
        self._let_through: dict[str, WouldRefuse] = {}  # by session
        self._refusals: list[Row] = []
        self._folded: dict[tuple[str, ...], list[Any]] = {}
        self._number = 0
        self._closed = False
        self._timer: IDelayedCall | None = None
        self._pruning: IDelayedCall | None = None
        self._writing: set[Deferred[Any]] = set()
        self._takes: dict[type[Event], Callable[[Any], None]] = {
            **dict.fromkeys(story.kinds(), self._happened),
            Accepted: self._begins,
            Started: self._starts,
            Delivered: self._ends,
            Delayed: self._ends,
            Failed: self._ends,
            Bounced: self._bounces,
            WouldRefuse: self._would_refuse,
            Refused: self._refused,
            RefusedMore: self._refused_more,
            AuthenticationFailed: self._refused_login,
        }

    def start(self) -> None:
        """Look for what is too old, from now on."""
        self._pruning = self._clock.callLater(0, self._prune)

    def close(self) -> Deferred[Any]:
        """Write what is left; fires when it is in the database, or cannot be."""
        if self._timer is not None:
            self._timer.cancel()
        if self._pruning is not None:
            self._pruning.cancel()
        self._closed = True
        self._flush()
        return self._last()

    def __call__(self, event: Event) -> None:
        """Take one event."""
        self._takes[type(event)](event)
        if self._timer is None:
            self._timer = self._clock.callLater(GATHER, self._flush)

    # gathering

    def _begins(self, event: Accepted) -> None:
        self._accepted[event.id] = event
        if self._let_through:
            let_through = self._let_through.pop(event.session, None)
            if let_through is not None:
                self._stories.setdefault(event.id, []).append(story.chapter(let_through))

    def _would_refuse(self, event: WouldRefuse) -> None:
        """It belongs to the story of the message that its session sends now."""
        self._let_through[event.session] = event
        if len(self._let_through) > LET_THROUGH:
            del self._let_through[next(iter(self._let_through))]

    def _starts(self, event: Started) -> None:
        self._started[event.id, event.destination] = event

    def _ends(self, event: Any) -> None:
        started = self._started.pop((event.id, event.destination), None)
        if started is not None and event.at - started.at >= SHORT:
            self._happened(started)
        self._happened(event)

    def _bounces(self, event: Bounced) -> None:
        """The notification is a message of its own, and nobody stated its acceptance."""
        self._happened(event)
        subject = f"Delivery status notification ({event.kind}) for {event.id}"
        self._accepted[event.dsn] = Accepted(event.at, event.dsn, "", "", "", "", (event.to,), 2, 0, "", subject, list="")

    def _happened(self, event: Any) -> None:
        gathered = self._stories.get(event.id)
        if gathered is None:
            self._stories[event.id] = [story.chapter(event)]
        else:
            gathered.append(story.chapter(event))

    def _refused(self, event: Refused) -> None:
        if event.reference:
            self._refusal(event, event.sender, event.recipient, event.reply)
        elif event.user and event.reason not in PARTINGS:
            self._fold(None, _facts(event, event.sender, event.recipient, event.reply), 1)

    def _refused_more(self, event: RefusedMore) -> None:
        like = self._counted_with.like(event)
        if event.user or like.reference:
            facts = (event.at, event.session, event.client, event.user, like.sender, like.recipient, like.reason, like.reply)
            self._fold(None, facts, event.count)

    def _refused_login(self, event: AuthenticationFailed) -> None:
        if event.reference:
            self._refusal(event, "", "", f"{event.mechanism} on port {event.port}")

    def _refusal(self, event: Any, sender: str, recipient: str, reply: str) -> None:
        number, facts = parse_queue_id(event.reference), _facts(event, sender, recipient, reply)
        if len(self._refusals) < SEPARATE:
            self._refusals.append((number, *facts, 1))
        else:
            self._fold(number, facts, 1)

    def _fold(self, number: int | None, facts: tuple[Any, ...], count: int) -> None:
        """Count a refusal in a row with its like; `number` is its reference."""
        at, _, client, user, sender, _, reason, _ = facts
        key = (client.rpartition(":")[0], user, sender, reason)
        folded = self._folded.get(key)
        if folded is None and len(self._folded) >= DIFFERENT:
            whose = "" if reason == UNKNOWN_USER.code else user  # of the names that somebody guesses there is no end
            key = ("", whose, "", reason)
            folded = self._folded.get(key)
            facts = (at, "", "", whose, "", "", reason, "many different ones at once")
        if folded is None:
            self._folded[key] = [self._new_id() if number is None else number, *facts, count]
        else:
            folded[-1] += count

    # writing

    def _flush(self) -> None:
        self._timer = None
        self._keep_long_attempts()
        steps: Steps = []
        stories, self._stories = self._stories, {}
        for name, event in self._accepted.items():
            steps.append((INSERT_HISTORY, _row(event, stories.pop(name, ()))))
        found = marks.row((row[0], event.message_id) for (_, row), event in zip(steps, self._accepted.values(), strict=True))
        if found is not None:
            steps.append((INSERT_MESSAGE_IDS, found))
        self._accepted.clear()
        if stories:
            self._number = max(self._number + 1, int(self._now() * 1_000_000))
            for name, chapters in stories.items():
                steps.append((INSERT_HISTORY_STEPS, (parse_queue_id(name), self._number, story.encode(chapters))))
        steps += [(INSERT_REFUSAL, row) for row in self._refusals]
        steps += [(INSERT_REFUSAL, tuple(row)) for row in self._folded.values()]
        self._refusals.clear()
        self._folded.clear()
        if steps:
            self._write(steps, again=True)

    def _keep_long_attempts(self) -> None:
        """What started more than SHORT ago goes into the story; what started later is looked at again with the next batch."""
        if not self._started:
            return
        before = self._now() - SHORT
        for key, event in list(self._started.items()):
            if self._closed or event.at <= before:
                del self._started[key]
                self._happened(event)
        if self._started:
            self._timer = self._clock.callLater(GATHER, self._flush)

    def _write(self, steps: Steps, *, again: bool) -> None:
        writing = self._database.run(steps)
        self._writing.add(writing)
        writing.addBoth(self._written, writing, steps, again)

    def _written(self, result: Any, writing: Deferred[Any], steps: Steps, again: bool) -> None:
        self._writing.discard(writing)
        if not isinstance(result, Failure):
            return
        if again and not self._closed:
            self._clock.callLater(AGAIN, self._write, steps, again=False)
        else:
            self._log.failure("{count} rows of history could not be written and are lost", result, count=len(steps))

    def _last(self) -> Deferred[Any]:
        """Fires when nothing is being written."""
        if not self._writing:
            return succeed(None)
        waiting: Deferred[Any] = Deferred()
        next(iter(self._writing)).addBoth(lambda _: self._last().chainDeferred(waiting))
        return waiting

    # forgetting

    def _prune(self) -> None:
        self._pruning = None
        work = partial(prune, before=self._now() - self._kept)
        self._database.write(work).addCallbacks(self._pruned, self._not_pruned)

    def _pruned(self, more: bool) -> None:
        if not self._closed:
            self._pruning = self._clock.callLater(GATHER if more else PRUNE, self._prune)

    def _not_pruned(self, failure: Failure) -> None:
        self._log.failure("old history cannot be deleted; it is tried again", failure)
        self._pruned(False)


def prune(connection: Connection, before: float) -> bool:
    """Delete up to a page of what is older than `before`, seconds since the epoch, and does not wait. Whether there may be more."""
    limit = int(before * 1000) << 20
    steps = history_steps.c.message_id
    old = _old(connection, history.c.id, limit, ~exists().where(recipients.c.message_id == history.c.id))
    sums.keep_messages(connection, old)
    connection.execute(delete(history).where(history.c.id.in_(old)))
    connection.execute(delete(history_steps).where(steps.in_(old)))
    oldest = connection.scalar(select(func.min(history.c.id)))
    before_all = limit if oldest is None else min(limit, oldest)  # of messages that were accepted without a history
    orphans = _old(connection, steps, before_all, ~exists().where(recipients.c.message_id == steps))
    connection.execute(delete(history_steps).where(steps.in_(set(orphans))))
    refused = _old(connection, refusals.c.id, limit)
    sums.keep_refusals(connection, refused)
    connection.execute(delete(refusals).where(refusals.c.id.in_(refused)))
    connection.execute(delete(message_ids).where(message_ids.c.first < limit, message_ids.c.last < limit))  # the former is the key
    sums.forget(connection, before)
    return PAGE in (len(old), len(orphans), len(refused))


def _old(connection: Connection, key: Column[int], limit: int, *conditions: ColumnElement[bool]) -> Sequence[int]:
    """A page of keys below `limit`, the oldest first."""
    return connection.scalars(select(key).where(key < limit, *conditions).order_by(key).limit(PAGE)).all()


def _facts(event: Any, sender: str, recipient: str, reply: str) -> tuple[Any, ...]:
    """What a row of refusals says, between its id and its count."""
    return (event.at, event.session, event.client, event.user, sender, recipient, event.reason, reply)


def _row(event: Accepted, chapters: Any) -> Row:
    return (
        parse_queue_id(event.id),
        event.at,
        event.user,
        event.list if event.user or event.session else "",  # our own mail is of no list
        event.sender,
        _encode(event.recipients).decode("utf-8"),
        event.level,
        event.size,
        event.session,
        event.client,
        event.message_id,
        event.subject,
        event.campaign,
        story.encode(chapters) if chapters else "",
    )
