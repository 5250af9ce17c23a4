"""The look at the server: each trouble is stated, and nothing where there is none."""

from __future__ import annotations

import datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from sqlalchemy import Connection
from twisted.internet import reactor
from twisted.internet.defer import inlineCallbacks
from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase

from smtpplus.events import Event, Events, Fault, Trouble
from smtpplus.observation import watchdog
from smtpplus.observation.maillog import MailLog
from smtpplus.observation.watchdog import EVERY, MANY, Watchdog, chains
from smtpplus.storage.database import Database
from smtpplus.storage.engine import migrate
from tests.turns import until

NOW = 1_800_000_000.0
DAY = 86_400.0


def certificate(path: Path, end: float) -> Path:
    """A self-signed certificate that ends at `end`."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "a.com")])
    made = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key()).serial_number(1)
    at = datetime.datetime.fromtimestamp(end, datetime.UTC)
    signed = made.not_valid_before(at - datetime.timedelta(days=90)).not_valid_after(at).sign(key, hashes.SHA256())
    path.write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    return path


def _execute(statement: str, connection: Connection) -> None:
    connection.exec_driver_sql(statement)


class WatchdogTests(TestCase):
    """A watchdog on a real database and file system."""

    @pytest.fixture(autouse=True)
    def _patching(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.monkeypatch = monkeypatch

    def setUp(self) -> None:
        self.directory = Path(self.mktemp())
        url = f"sqlite:///{self.directory}/smtpplus.sqlite"
        migrate(url)
        self.database = Database(url, reactor)
        self.database.start()
        self.clock = Clock()
        self.stated: list[Event] = []
        self.monkeypatch.setattr(watchdog, "FREE", 0.0)  # the machine of the tests may be full
        self.monkeypatch.setattr(watchdog, "FREE_OCTETS", 0)

    def tearDown(self) -> Any:
        return self.database.stop()

    def watchdog(self, end: float = NOW + 100 * DAY) -> Watchdog:
        bus = Events()
        bus.subscribe(self.stated.append)
        path = certificate(self.directory / "c.pem", end)

        def certificates() -> list[Path]:
            return [path, *chains(self.directory / "more")]

        return Watchdog(self.database, self.clock, events=bus, now=lambda: NOW, directory=self.directory, certificates=certificates)

    def kinds(self) -> list[str]:
        return [event.kind for event in self.stated if isinstance(event, Trouble)]

    @inlineCallbacks
    def test_nothing_to_say(self) -> Any:
        """A server in order raises nothing."""
        yield self.watchdog().look()
        self.assertEqual(self.stated, [])

    @inlineCallbacks
    def test_certificate_ports_and_disk(self) -> Any:
        """B6, A2: a certificate near its end, a port that is held, a disk that fills are told with their remedy."""
        watcher = self.watchdog(NOW + 3 * DAY)
        watcher.skipped = lambda: ["port 2525 is held by another program"]
        self.monkeypatch.setattr(watchdog, "FREE", 1.1)
        yield watcher.look()
        self.assertEqual(self.kinds(), ["disk_filling", "certificate_expiring", "port_taken"])
        self.assertTrue(all(event.remedy and event.why for event in self.stated if isinstance(event, Trouble)))

    @inlineCallbacks
    def test_every_certificate_is_looked_at(self) -> Any:
        """B6: those of `[tls] directory` expire as well, also one that came later; one that cannot be read hides no other."""
        watcher = self.watchdog()
        for name, end in (("a", NOW - DAY), ("b", NOW + 100 * DAY), ("c", NOW + DAY)):
            (self.directory / "more" / name).mkdir(parents=True)
            certificate(self.directory / "more" / name / "fullchain.pem", end)
        (self.directory / "more" / "b" / "fullchain.pem").write_text("nonsense")
        yield watcher.look()
        found = [(Path(event.what).parent.name, event.why.split(" on ")[0]) for event in self.stated if isinstance(event, Trouble)]
        self.assertEqual([name for name, _ in found], ["a", "b", "c"])
        self.assertEqual((found[0][1], found[2][1]), ("it expired", "it expires"))
        self.assertIn("cannot be read", found[1][1])

    @inlineCallbacks
    def test_a_queue_that_grows(self) -> Any:
        """Only growth over several looks in a row, of more than a few, is a trouble."""
        watcher = self.watchdog()
        rows = 0
        for _ in range(7):
            values = ", ".join(f"({number}, 0, 'y', 3, '', 0, 0)" for number in range(rows, rows + MANY // 4))
            rows += MANY // 4
            insert = f"INSERT INTO recipients (message_id, number, address, level, user, attempts, due) VALUES {values}"
            yield self.database.write(partial(_execute, insert))
            yield watcher.look()
        self.assertIn("queue_growing", self.kinds())
        self.stated.clear()
        yield watcher.look()
        self.assertEqual(self.stated, [])

    @inlineCallbacks
    def test_once_a_minute(self) -> Any:
        """It looks at once and then every minute, until it is stopped."""
        watcher = self.watchdog()
        watcher.start()
        yield until(self.clock.getDelayedCalls)
        (call,) = self.clock.getDelayedCalls()
        self.assertEqual(call.getTime(), EVERY)
        watcher.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    @inlineCallbacks
    def test_a_mail_log_that_cannot_be_written(self) -> Any:
        """B6: it is told with its remedy for as long as it lasts; events are taken all the same, and no more is said when it is mended."""
        watcher = self.watchdog()
        path = self.directory / "mail.log"
        path.mkdir()
        log = MailLog(path, "text", self.clock, lambda: NOW)
        watcher.unwritten = lambda: log.fault
        for mended in (False, False, True):
            if mended:
                path.rmdir()
            log(Fault(NOW, "x"))
            log.flush()
            yield watcher.look()
        log.close()
        self.assertEqual(self.kinds(), ["mail_log_unwritable"] * 2)
        told = self.stated[0]
        assert isinstance(told, Trouble)
        self.assertIn("Is a directory", told.why)
        self.assertIn("[log] mail", told.remedy)

    @inlineCallbacks
    def test_a_slow_database(self) -> Any:
        """Commits that take long on the average are told."""
        watcher = self.watchdog()
        writer = self.database.writer
        yield watcher.look()
        writer.commits, writer.seconds = writer.commits + 2, writer.seconds + 4.0
        yield watcher.look()
        self.assertEqual(self.kinds(), ["database_slow"])
