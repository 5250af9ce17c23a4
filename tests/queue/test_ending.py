"""The end of the daemon while an attempt is on its way to begin."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import inlineCallbacks

from smtpplus import events as facts
from tests.queue.fixtures import LATER, envelope
from tests.queue.house import QueueCase

ROWS = "SELECT attempts, due FROM recipients"


class EndingTests(QueueCase):
    """SIGTERM comes between the record of an attempt and its beginning."""

    @inlineCallbacks
    def end(self) -> Any:
        """The end, as the daemon brings it about, and the opening of the next one."""
        before, ended = self.agent.begun(), list[object]()
        self.queue.stop(5).addCallback(ended.append)
        yield self.until(lambda: ended)
        yield self.database.stop()
        self.assertEqual(self.agent.begun(), before)
        self.stated_then = self.events
        self.open()

    @inlineCallbacks
    def test_an_attempt_that_never_began_is_not_counted(self) -> Any:
        """C2, C4: it is as if it had not been recorded: nothing is told of it, and the next daemon makes the first attempt at once."""
        yield self.accept(envelope(1, at=self.wall))
        self.clock.advance(0)
        self.assertEqual(self.queue.scheduler.waiting(), (0, 0, 1))
        yield self.end()
        self.assertEqual(self.rows(ROWS), [(0, 0.0)])
        self.assertEqual([event for event in self.stated_then if isinstance(event, facts.Started | facts.Deferred)], [])
        yield self.queue.start()
        yield self.begun(1)
        self.assertEqual(self.agent.transfers[0].request.attempt, 1)

    @inlineCallbacks
    def test_nor_is_that_of_urgent_mail(self) -> Any:
        """A27: so it is with one that was recorded with the acceptance."""
        yield self.accept(envelope(1, 1, at=self.wall))
        self.assertEqual(self.rows(ROWS), [(1, self.wall + 60)])
        yield self.end()
        self.assertEqual(self.rows(ROWS), [(0, 0.0)])

    @inlineCallbacks
    def test_nor_is_one_after_others(self) -> Any:
        """C4: those before it stay counted."""
        yield self.accept(envelope(1, at=self.wall))
        yield self.begun(1)
        self.agent.transfers[0].end(LATER)
        yield self.until(lambda: self.queue.scheduler.waiting() == (0, 1, 0))
        self.wall += 60
        self.clock.advance(0.25)
        yield self.until(lambda: self.queue.scheduler.waiting()[2] == 1)
        yield self.end()
        self.assertEqual(self.rows(ROWS), [(1, 0.0)])
        yield self.queue.start()
        yield self.begun(1)
        self.assertEqual(self.agent.transfers[0].request.attempt, 2)
