"""A configuration file that changes while the daemon runs: what is right is given on, what is faulty changes nothing."""

from __future__ import annotations

from pathlib import Path

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from smtpplus.config import Configuration, load
from smtpplus.config.watch import POLL, FileWatch

ALERT = 'hostname = "a.com"\n[senders]\nunauthorized = "alert"\n'


class WatchTests(SynchronousTestCase):
    """One file, and a clock that the test moves."""

    def setUp(self) -> None:
        self.path = Path(self.mktemp())
        self.path.write_text('hostname = "a.com"\n')
        self.clock = Clock()
        self.given: list[Configuration] = []
        self.watch = FileWatch(self.path, self.clock, self.given.append)
        self.watch.start()

    def replace(self, text: str) -> None:
        """Replace the file as editors do: by another one of the same name."""
        other = self.path.with_suffix(".new")
        other.write_text(text)
        other.replace(self.path)

    def look(self) -> list[Configuration]:
        """What one look gives."""
        self.given.clear()
        self.clock.advance(POLL)
        return list(self.given)

    def test_a_change_is_given_once(self) -> None:
        """A20: a changed file is loaded and given at the next look, an unchanged one never; after `stop` nobody looks."""
        self.assertEqual(self.look(), [])
        self.replace(ALERT)
        self.assertEqual(self.look(), [load(self.path)])
        self.assertEqual(self.look(), [])
        self.watch.stop()
        self.replace('hostname = "b.com"\n')
        self.assertEqual((self.look(), self.clock.getDelayedCalls()), ([], []))

    def test_a_change_before_the_start_counts(self) -> None:
        """What was changed between loading and the first look is given too."""
        watch = FileWatch(self.path, self.clock, self.given.append)
        self.replace(ALERT)
        watch.start()
        self.clock.advance(POLL)
        self.assertEqual([each.senders.unauthorized for each in self.given], ["alert", "alert"])

    def test_a_faulty_file_changes_nothing(self) -> None:
        """A file with faults, or without a file, gives nothing, once mended it counts."""
        for text in ("[senders]\nunauthorized = 'perhaps'\n", "unfinished = ["):
            self.replace(text)
            self.assertEqual(self.look(), [])
        self.path.unlink()
        self.assertEqual(self.look(), [])
        self.path.mkdir()
        self.assertEqual(self.look(), [])
        self.path.rmdir()
        self.replace(ALERT)
        self.assertEqual([each.senders.unauthorized for each in self.look()], ["alert"])
