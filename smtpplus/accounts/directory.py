"""The daemon's view of the accounts: logins, and snapshots that are never more than a second old.

Users are read when they are needed and kept, at most `capacity` of them beside those that sessions hold. Twice a second the
generation of the accounts is read; when it has changed, the kept users that differ are read anew and their remembered logins are
forgotten. What lists set is kept per list, so that the change of a list costs the same however many users it has. So a change made by
any process on the database shows within a second, and an unchanged database costs one small query per tick. If the database
cannot be read, what is known stays in force; the fault is logged once, until it can.

A login is verified by argon2 in threads of its own. A right password is remembered for a minute as a keyed hash, so that a client
that logs in per message costs one argon2 per minute; equal logins that arrive together share one. Passwords are not kept.
"""

from __future__ import annotations

import hmac
import os
from collections import OrderedDict
from typing import Any, Callable
from weakref import WeakValueDictionary

import msgspec
from sqlalchemy import Connection
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import LoopingCall
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.python.threadpool import ThreadPool

from smtpplus.accounts import fields, lists, passwords, store
from smtpplus.accounts.authorization import inactive
from smtpplus.accounts.settings import SERVER, Effective, Settings, effective
from smtpplus.accounts.user import User
from smtpplus.mail import reasons
from smtpplus.storage.database import Database

POLL = 0.5  # seconds between two looks at the generation
REMEMBERED = 60.0  # seconds a right password needs no argon2
THREADS = 2  # argon2 at a time; each takes a core and 19 MiB
CAPACITY = 10_000  # users kept that no session holds
LOGINS = 4  # right logins remembered per user; more than one only where the password's octets can differ


class LoginFailed(Exception):
    """A login is not right. `reason` is the true one, a code of mail.reasons; the client is told LOGIN_FAILED. `user` is the name of a user
    who exists, else "": what was typed there may be a password."""

    def __init__(self, user: str, reason: str) -> None:
        super().__init__(f"{user}: {reason}")
        self.user = user
        self.reason = reason


class _Account:
    """What is known of one user now: every snapshot given out leads here. `user` is None for good once the user is deleted."""

    __slots__ = ("__weakref__", "logins", "user")

    def __init__(self) -> None:
        self.user: _Snapshot | None = None
        self.logins: OrderedDict[bytes, float] = OrderedDict()  # keyed hash: time until which it is right


class _Snapshot(User, frozen=True):
    """A user with the way to its successor."""

    account: _Account | None = None


_FIELDS = tuple(field.name for field in msgspec.structs.fields(User))


class Directory:
    """Users by name, for one daemon. Methods are called on the reactor's thread."""

    _log = Logger()

    def __init__(
        self,
        database: Database,
        reactor: Any,
        *,
        clock: Any = None,
        threads: int = THREADS,
        capacity: int = CAPACITY,
        random: Callable[[int], bytes] = os.urandom,
    ) -> None:
        """`reactor` runs the threads' answers, and is the clock unless `clock` (IReactorTime) is another."""
        self.server = SERVER  # what the configuration sets; whoever has another one puts it here
        self._database = database
        self._reactor = reactor
        self._clock = reactor if clock is None else clock
        self._pool = ThreadPool(0, threads, name="smtpplus-login")
        self._capacity = capacity
        self._lists: dict[str, Settings] = {}  # of the lists that a user who was ever known belongs to
        self._key = random(32)
        self._recent: OrderedDict[str, _Account] = OrderedDict()  # the last one used comes last
        self._known: WeakValueDictionary[str, _Account] = WeakValueDictionary()  # these, and those that sessions hold
        self._verifying: dict[bytes, list[Deferred[User]]] = {}
        self._generation: int | None = None
        self._unchecked: set[str] = set()  # read since the last look began, perhaps just before a change that it saw
        self._unchecked_lists: set[str] = set()
        self._unread = False  # the database could not be read the last time, and the log says so
        self._loop = LoopingCall(self._poll)
        self._loop.clock = self._clock

    def start(self) -> None:
        """Start the threads and the look for changes. The database must be started."""
        self._pool.start()
        self._loop.start(POLL, now=False)

    def stop(self) -> None:
        """Stop looking for changes, and wait for the passwords being verified."""
        if self._loop.running:
            self._loop.stop()
        self._pool.stop()

    def current(self, user: User) -> User | None:
        """The snapshot in force for the user of an earlier one, at most a second old; None if the user was deleted."""
        account = getattr(user, "account", None)
        return account.user if account is not None else user

    def effective(self, user: User) -> Effective:
        """What is in force for the user of a snapshot: their own settings are in it, those of the list are at most a second old."""
        return effective(self.server, self._lists.get(user.list, user.list_settings), user.settings)

    def find(self, name: str) -> Deferred[User | None]:
        """The user with this name, however it is written; None if there is none."""
        try:
            name = fields.user_name(name)
        except fields.FieldError:
            return succeed(None)
        account = self._known.get(name)
        if account is not None and account.user is not None:
            self._keep(name, account)
            return succeed(account.user)
        return self._database.read(lambda connection: store.load_user(connection, name)).addCallback(self._found)

    def read(self, name: str) -> Deferred[User | None]:
        """The user with this name as the database has it now: the same work whether it is known, unknown or no name at all."""
        return self._database.read(lambda connection: store.load_user(connection, name.strip().lower()))

    def login(self, user: str, password: bytes | str) -> Deferred[User]:
        """The user, if this is the password. Fails with LoginFailed; with the database's error if it cannot be read."""
        secret = password.encode("utf-8", "surrogateescape") if isinstance(password, str) else password
        name = user.strip().lower()
        mark = hmac.digest(self._key, name.encode("utf-8", "surrogateescape") + b"\0" + secret, "sha256")
        account = self._known.get(name)
        if account is not None and account.user is not None and account.user.active and self._remembers(account, mark):
            self._keep(name, account)
            return succeed(account.user)
        answer: Deferred[User] = Deferred()
        waiting = self._verifying.setdefault(mark, [])
        waiting.append(answer)
        if len(waiting) == 1:
            self.find(name).addCallback(self._verify, name, secret, mark).addBoth(self._answer, mark)
        return answer

    def _verify(self, user: User | None, name: str, secret: bytes, mark: bytes) -> Deferred[User]:
        hashed = passwords.DUMMY if user is None else str(user.password)
        verified = deferToThreadPool(self._reactor, self._pool, passwords.verify, hashed, secret)
        return verified.addCallback(self._verified, user, name, secret, mark)

    def _verified(self, right: bool, user: User | None, name: str, secret: bytes, mark: bytes) -> User | Deferred[User]:
        now = self.current(user) if user is not None else None
        if user is None or now is None:
            return fail(LoginFailed("", reasons.UNKNOWN_USER.code))
        if now.password != user.password:  # reset in the meantime
            return self._verify(now, name, secret, mark)
        if not right:
            return fail(LoginFailed(name, reasons.WRONG_PASSWORD.code))
        if not now.active:
            return fail(LoginFailed(name, inactive(now).code))
        account = self._known.get(name)
        if account is not None:
            account.logins[mark] = self._clock.seconds() + REMEMBERED
            while len(account.logins) > LOGINS:
                account.logins.popitem(last=False)
        return now

    def _answer(self, outcome: User | Failure, mark: bytes) -> None:
        for answer in self._verifying.pop(mark):
            if isinstance(outcome, Failure):
                answer.errback(outcome)
            else:
                answer.callback(outcome)

    def _remembers(self, account: _Account, mark: bytes) -> bool:
        until = account.logins.get(mark)
        if until is None:
            return False
        if self._clock.seconds() < until:
            return True
        del account.logins[mark]
        return False

    def _keep(self, name: str, account: _Account) -> None:
        """Note that a user is used; let go of the one that was not for longest. Sessions keep theirs alive by their snapshots."""
        self._recent[name] = account
        self._recent.move_to_end(name)
        if len(self._recent) > self._capacity:
            self._recent.popitem(last=False)

    def _found(self, user: User | None) -> User | None:
        if user is None:
            return None
        account = self._known.get(user.name)
        if account is None or account.user is None:
            account = self._known[user.name] = _Account()
            account.user = _snapshot(user, account)
            self._unchecked.add(user.name)
            self._learn(user)
        self._keep(user.name, account)
        return account.user

    def _learn(self, user: User) -> None:
        """Note what the user's list sets, if it was not known."""
        if user.list not in self._lists:
            self._lists[user.list] = user.list_settings
            self._unchecked_lists.add(user.list)

    # Changes

    def _poll(self) -> Deferred[None]:
        seen, unchecked, named = self._generation, self._unchecked, self._unchecked_lists
        self._unchecked, self._unchecked_lists = set(), set()
        known = [*self._lists]
        have = {name: (account.user.id, account.user.changed_at) for name, account in self._known.items() if account.user is not None}

        def look(connection: Connection) -> tuple[int, dict[str, User | None], dict[str, Settings]]:
            number = store.read_generation(connection)
            checked = have if number != seen else {name: have[name] for name in unchecked & have.keys()}
            asked = known if number != seen else [*named]
            return number, _changed(connection, checked), lists.load_settings(connection, asked) if asked else {}

        return self._database.read(look).addCallback(self._apply).addErrback(self._unreadable, unchecked, named)

    def _apply(self, found: tuple[int, dict[str, User | None], dict[str, Settings]]) -> None:
        self._unread = False
        self._generation, changed, settings = found
        self._lists.update(settings)
        for name, user in changed.items():
            account = self._known.get(name)
            if account is None or account.user is None:
                continue
            account.logins.clear()
            if user is not None and user.created_at == account.user.created_at:
                account.user = _snapshot(user, account)
                self._learn(user)
                continue
            account.user = None  # deleted, perhaps made anew: that is somebody else
            self._known.pop(name, None)
            self._recent.pop(name, None)

    def _unreadable(self, failure: Failure, unchecked: set[str], named: set[str]) -> None:
        self._unchecked |= unchecked
        self._unchecked_lists |= named
        if not self._unread:
            self._log.failure("the accounts cannot be read; what is known of them stays in force, and it is tried again", failure)
        self._unread = True


def _changed(connection: Connection, have: dict[str, store.Fingerprint]) -> dict[str, User | None]:
    """The users among `have` that are not what they were, as they are now."""
    are = store.fingerprints(connection, have)
    names = [name for name, fingerprint in have.items() if are.get(name) != fingerprint]
    users = store.load_users(connection, names)
    return {name: users.get(name) for name in names}


def _snapshot(user: User, account: _Account) -> _Snapshot:
    return _Snapshot(**{name: getattr(user, name) for name in _FIELDS}, account=account)
