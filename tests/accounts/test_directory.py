"""The daemon's view of the accounts, on a real database and real threads; time is a clock that the test moves."""

from __future__ import annotations

import contextlib
import gc
import threading
from pathlib import Path
from typing import Any, Iterator

import msgspec
from sqlalchemy import Connection, event
from twisted.internet import reactor
from twisted.internet.defer import DeferredList, inlineCallbacks
from twisted.internet.task import Clock, deferLater
from twisted.trial.unittest import TestCase

from smtpplus.accounts import fields, lists, passwords, store
from smtpplus.accounts.directory import CAPACITY, POLL, REMEMBERED, Directory, LoginFailed
from smtpplus.accounts.settings import Settings
from smtpplus.accounts.user import User
from smtpplus.mail import reasons
from smtpplus.storage.database import Database
from smtpplus.storage.engine import create_engine, migrate

ENOUGH = 400  # turns of 25 ms that a thread may take on a busy machine
HASHES = {password: passwords.hash_password(password) for password in ("right", "other")}


class DirectoryTests(TestCase):
    """One directory per test; `self.engine` stands for another process on the same database."""

    capacity = CAPACITY

    def setUp(self) -> None:
        url = f"sqlite:///{Path(self.mktemp())}/smtpplus.sqlite"
        migrate(url)
        self.engine = create_engine(url)
        self.database = Database(url, reactor)
        self.database.start()
        self.clock = Clock()
        self.queries = 0
        event.listen(self.database._engine, "before_cursor_execute", self._count)
        self.directory = Directory(self.database, reactor, clock=self.clock, capacity=self.capacity)
        self.directory.start()
        self.verified = 0

    def tearDown(self) -> Any:
        self.directory.stop()
        self.engine.dispose()
        return self.database.stop()

    def _count(self, _connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        self.queries += statement.startswith("SELECT")

    @contextlib.contextmanager
    def elsewhere(self) -> Iterator[Connection]:
        """A transaction of another process."""
        with self.engine.begin() as connection:
            yield connection

    def add(self, name: str = "app", **more: Any) -> None:
        with self.elsewhere() as connection:
            store.add_user(connection, name, HASHES["right"], now=1.0, domains=fields.domains("a.com"), vouch=True, **more)

    @inlineCallbacks
    def look(self) -> Any:
        """Let the directory look for changes, and wait until it has."""
        self.clock.advance(POLL)
        for _ in range(ENOUGH):
            yield deferLater(reactor, 0.025, lambda: None)
            if self.clock.getDelayedCalls():  # the next look is planned: this one is over
                return
        self.fail("the directory does not finish looking")

    @inlineCallbacks
    def refused(self, user: str, password: bytes | str) -> Any:
        """The true reason for which a login fails."""
        try:
            yield self.directory.login(user, password)
        except LoginFailed as failed:
            return failed.reason
        return None

    @inlineCallbacks
    def test_login(self) -> Any:
        """B1, A7: the right password gives the user, however the name is written; everything else fails with its true reason."""
        self.add()
        self.add("idle", active=False)
        user = yield self.directory.login(" APP", b"right")
        self.assertEqual((user.name, [str(entry) for entry in user.senders]), ("app", ["a.com"]))
        for name, password, reason in (
            ("app", "right", None),
            ("app", "wrong", reasons.WRONG_PASSWORD),
            ("app", "", reasons.WRONG_PASSWORD),
            ("app", b"\xff\0", reasons.WRONG_PASSWORD),
            ("app", "\udcff", reasons.WRONG_PASSWORD),
            ("nobody", "right", reasons.UNKNOWN_USER),
            ("", "right", reasons.UNKNOWN_USER),
            ("a\0b\udcff", "right", reasons.UNKNOWN_USER),
            ("idle", "right", reasons.INACTIVE_USER),
            ("idle", "wrong", reasons.WRONG_PASSWORD),
        ):
            found = yield self.refused(name, password)
            self.assertEqual(found, reason and reason.code, (name, password))

    def count_verifications(self) -> None:
        """Count in `self.verified` how often argon2 runs."""
        real = passwords.verify

        def counted(hashed: str, password: str | bytes) -> bool:
            self.verified += 1
            return real(hashed, password)

        self.patch(passwords, "verify", counted)

    @inlineCallbacks
    def test_right_password_is_remembered(self) -> Any:
        """B1: a login that repeats a right password within a minute costs neither argon2 nor a query; then it is verified again."""
        self.add()
        self.count_verifications()
        first = yield self.directory.login("app", "right")
        queries = self.queries
        for _ in range(50):
            again = self.directory.login("app", "right")
            self.assertIs(self.successResultOf(again), first)
        self.assertEqual((self.verified, self.queries), (1, queries))
        self.clock.advance(REMEMBERED)
        yield self.directory.login("app", "right")
        self.assertEqual(self.verified, 2)

    @inlineCallbacks
    def test_wrong_password_is_verified_each_time(self) -> Any:
        """B1: an unknown user and a wrong password cost one argon2 each, every time, so that time tells nothing."""
        self.add()
        self.count_verifications()
        for _ in range(2):
            yield self.refused("app", "wrong")
            yield self.refused("nobody", "wrong")
        self.assertEqual(self.verified, 4)

    @inlineCallbacks
    def test_equal_logins_share_one_verification(self) -> Any:
        """Twenty sessions that log in together with the same password cost one argon2, and all get in; a different one does not."""
        self.add()
        self.count_verifications()
        attempts = [self.directory.login("app", "right") for _ in range(20)]
        wrong = self.refused("app", "wrong")
        results = yield DeferredList(attempts, consumeErrors=True)
        self.assertEqual([(right, user.name) for right, user in results], [(True, "app")] * 20)
        self.assertEqual((yield wrong), reasons.WRONG_PASSWORD.code)
        self.assertEqual(self.verified, 2)

    @inlineCallbacks
    def test_passwords_are_not_kept(self) -> Any:
        """A6: after a login nothing that the directory holds has the password in it."""
        self.add()
        with self.elsewhere() as connection:
            store.set_password(connection, "app", passwords.hash_password("a very peculiar password"), now=2.0)
        yield self.directory.login("app", b"a very peculiar password")
        account = self.directory._known["app"]
        held = repr((account.logins, account.user and msgspec.structs.asdict(account.user), self.directory._verifying))
        self.assertEqual(len(account.logins), 1)
        self.assertNotIn("peculiar", held)

    @inlineCallbacks
    def test_changes_elsewhere_are_seen(self) -> Any:
        """A7: what another process changes is in force after one look, for logins and for sessions that are open."""
        self.add()
        session = yield self.directory.login("app", "right")
        with self.elsewhere() as connection:
            store.edit_user(connection, "app", store.Changes(domains=fields.domains("b.com"), settings={"priority": 1}), now=2.0)
        yield self.look()
        now = self.directory.current(session)
        assert now is not None
        self.assertEqual((self.directory.effective(now).priority, [str(entry) for entry in now.senders]), (1, ["b.com"]))
        self.assertEqual(self.directory.effective(session).priority, 3)
        self.assertIs((yield self.directory.find("app")), now)
        self.assertIs(self.directory.current(now), now)

    @inlineCallbacks
    def test_reset_and_deactivation_end_remembered_logins(self) -> Any:
        """A6, A7: after a reset the old password fails, after a deactivation every one, and after an activation the right one is fine."""
        self.add()
        session = yield self.directory.login("app", "right")
        with self.elsewhere() as connection:
            store.set_password(connection, "app", HASHES["other"], now=2.0)
        yield self.look()
        self.assertEqual((yield self.refused("app", "right")), reasons.WRONG_PASSWORD.code)
        self.assertEqual((yield self.refused("app", "other")), None)
        with self.elsewhere() as connection:
            store.set_active(connection, "app", False, now=3.0)
        yield self.look()
        self.assertEqual((yield self.refused("app", "other")), reasons.INACTIVE_USER.code)
        now = self.directory.current(session)
        self.assertFalse(now is None or now.active)
        with self.elsewhere() as connection:
            store.set_active(connection, "app", True, now=4.0)
        yield self.look()
        self.assertEqual((yield self.refused("app", "other")), None)

    @inlineCallbacks
    def test_deleted_user(self) -> Any:
        """A5: a deleted user is gone for logins and open sessions, and one made anew under the name is somebody else."""
        self.add()
        session = yield self.directory.login("app", "right")
        with self.elsewhere() as connection:
            store.delete_user(connection, "app")
        yield self.look()
        self.assertIsNone(self.directory.current(session))
        self.assertEqual((yield self.refused("app", "right")), reasons.UNKNOWN_USER.code)
        self.add()
        yield self.look()
        anew = yield self.directory.login("app", "right")
        self.assertIsNone(self.directory.current(session))
        self.assertIs(self.directory.current(anew), anew)

    @inlineCallbacks
    def test_deleted_and_made_anew_between_two_looks(self) -> Any:
        """A5: an open session does not become the session of another user who got the name in between."""
        self.add()
        session = yield self.directory.login("app", "right")
        with self.elsewhere() as connection:
            store.delete_user(connection, "app")
            store.add_user(connection, "app", HASHES["other"], now=2.0)
        yield self.look()
        self.assertIsNone(self.directory.current(session))
        self.assertEqual((yield self.refused("app", "right")), reasons.WRONG_PASSWORD.code)

    @inlineCallbacks
    def test_password_reset_while_it_is_verified(self) -> Any:
        """A6: a login that is being verified when a reset is seen is judged by the new password."""
        self.add()
        yield self.directory.find("app")
        real, seen = passwords.verify, threading.Event()

        def slow(hashed: str, password: str | bytes) -> bool:
            self.assertTrue(seen.wait(60))
            return real(hashed, password)

        self.patch(passwords, "verify", slow)
        old, new = self.refused("app", "right"), self.refused("app", "other")
        with self.elsewhere() as connection:
            store.set_password(connection, "app", HASHES["other"], now=2.0)
        yield self.look()
        seen.set()
        self.assertEqual((yield old), reasons.WRONG_PASSWORD.code)
        self.assertEqual((yield new), None)

    @inlineCallbacks
    def test_unchanged_database_costs_one_query(self) -> Any:
        """An idle tick reads the generation and nothing else, however many users are known."""
        for number in range(20):
            self.add(f"user{number}")
            yield self.directory.find(f"user{number}")
        yield self.look()
        yield self.look()
        before = self.queries
        yield self.look()
        self.assertEqual(self.queries - before, 1)

    @inlineCallbacks
    def test_list_in_force_for_all_its_users(self) -> Any:
        """A20, A32: what a list sets is in force for each of its users after one look, and costs neither a reading of users nor a login."""
        with self.elsewhere() as connection:
            lists.add_list(connection, "news", now=1.0)
        self.add("other")
        self.add("app", list="news")
        session = yield self.directory.login("app", "right")
        other = yield self.directory.find("other")
        yield self.look()
        self.count_verifications()
        before = self.queries
        with self.elsewhere() as connection:
            lists.edit_list(connection, "news", now=2.0, settings={"unauthorized": "alert", "ceiling": 4})
        yield self.look()
        now = self.directory.effective(session)
        self.assertEqual((now.unauthorized, now.ceiling, now.origins["ceiling"]), ("alert", 4, "list"))
        self.assertEqual(self.directory.effective(other).unauthorized, "block")
        self.assertIs(self.directory.current(session), session)
        self.assertEqual(self.queries - before, 3)  # the generation, who has changed, the lists: however many users
        yield self.directory.login("app", "right")
        self.assertEqual(self.verified, 0)

    @inlineCallbacks
    def test_moved_to_another_list(self) -> Any:
        """A32: a user who changes lists, by an edit or because the list is deleted, has what the other list sets."""
        with self.elsewhere() as connection:
            lists.add_list(connection, "news", now=1.0, settings=Settings(priority=5))
            lists.add_list(connection, "fast", now=1.0, settings=Settings(priority=1))
        self.add("app", list="news")
        session = yield self.directory.login("app", "right")
        self.assertEqual(self.directory.effective(session).priority, 5)
        with self.elsewhere() as connection:
            lists.delete_list(connection, "news", now=2.0, move_to="fast")
        yield self.look()
        now = self.directory.current(session)
        assert now is not None
        self.assertEqual((now.list, self.directory.effective(now).priority), ("fast", 1))
        with self.elsewhere() as connection:
            store.edit_user(connection, "app", store.Changes(list="default"), now=3.0)
        yield self.look()
        now = self.directory.current(session)
        assert now is not None
        self.assertEqual(self.directory.effective(now).priority, 3)

    @inlineCallbacks
    def test_list_read_just_before_a_change(self) -> Any:
        """A32: what a list set when its first user was read is checked by the next look, even if an earlier look saw the change."""
        self.add()
        old: list[User | None] = []
        yield self.database.read(lambda connection: store.load_user(connection, "app")).addCallback(old.append)
        with self.elsewhere() as connection:
            lists.edit_list(connection, "default", now=2.0, settings={"ceiling": 2})
        yield self.look()
        late = self.directory._found(old[0])
        assert late is not None
        self.assertEqual(self.directory.effective(late).ceiling, 1)
        yield self.look()
        self.assertEqual(self.directory.effective(late).ceiling, 2)

    @inlineCallbacks
    def test_user_read_just_before_a_change(self) -> Any:
        """A7: a user that was read before a change, but arrives after the look that saw it, is found changed by the next look."""
        self.add()
        old: list[User | None] = []
        yield self.database.read(lambda connection: store.load_user(connection, "app")).addCallback(old.append)
        with self.elsewhere() as connection:
            store.set_active(connection, "app", False, now=2.0)
        yield self.look()
        late = self.directory._found(old[0])
        assert late is not None
        self.assertTrue(late.active)
        yield self.look()
        now = self.directory.current(late)
        self.assertFalse(now is None or now.active)

    @inlineCallbacks
    def test_unreadable_database(self) -> Any:
        """If the accounts cannot be read, what is known stays in force, the fault is logged once, and looking goes on."""
        self.add()
        session = yield self.directory.login("app", "right")
        for _ in range(2):
            with self.elsewhere() as connection:
                connection.exec_driver_sql("ALTER TABLE generation RENAME TO elsewhere")
            for _ in range(3):
                yield self.look()
            self.assertEqual(len(self.flushLoggedErrors()), 1)
            self.assertIs(self.successResultOf(self.directory.login("app", "right")), session)
            with self.elsewhere() as connection:
                connection.exec_driver_sql("ALTER TABLE elsewhere RENAME TO generation")
            yield self.look()
        with self.elsewhere() as connection:
            store.set_active(connection, "app", False, now=2.0)
        yield self.look()
        now = self.directory.current(session)
        self.assertFalse(now is None or now.active)

    @inlineCallbacks
    def test_what_could_not_be_checked_is_checked_later(self) -> Any:
        """A user read while a change was under way is looked at once more, also if the next look fails."""
        self.add()
        session = yield self.directory.login("app", "right")
        with self.elsewhere() as connection:  # as if the user had been read just before this, and the generation just after
            connection.exec_driver_sql("UPDATE users SET active = 0, changed_at = 2.0")
            self.directory._generation = store.read_generation(connection)
            connection.exec_driver_sql("ALTER TABLE generation RENAME TO elsewhere")
        yield self.look()
        self.assertEqual(len(self.flushLoggedErrors()), 1)
        with self.elsewhere() as connection:
            connection.exec_driver_sql("ALTER TABLE elsewhere RENAME TO generation")
        yield self.look()
        now = self.directory.current(session)
        self.assertFalse(now is None or now.active)

    @inlineCallbacks
    def test_users_that_came_from_elsewhere(self) -> Any:
        """A snapshot that the directory did not give out is its own successor; a name that is none finds nobody."""
        self.add()
        with self.elsewhere() as connection:
            user = store.get_user(connection, "app")
        self.assertIs(self.directory.current(user), user)
        self.assertIsNone((yield self.directory.find("no body")))
        self.assertIsNone((yield self.directory.find("nobody")))


class SmallDirectoryTests(DirectoryTests):
    """The same rules hold, and memory is bounded, when hardly anything is kept."""

    capacity = 1

    @inlineCallbacks
    def test_only_so_many_are_kept(self) -> Any:
        """Users that no session holds are let go of beyond the capacity; one that a session holds is still watched for changes."""
        for name in ("held", "app", "more", "last"):
            self.add(name)
        held = yield self.directory.login("held", "right")
        for name in ("app", "more", "last"):
            yield self.directory.find(name)
        gc.collect()
        self.assertEqual(sorted(self.directory._known), ["held", "last"])
        with self.elsewhere() as connection:
            store.edit_user(connection, "held", store.Changes(settings={"priority": 5}), now=2.0)
            store.set_active(connection, "app", False, now=2.0)
        yield self.look()
        now = self.directory.current(held)
        assert now is not None
        self.assertEqual(self.directory.effective(now).priority, 5)
        del held, now
        gc.collect()
        self.assertEqual(sorted(self.directory._known), ["last"])
