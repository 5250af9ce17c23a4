"""Login by twisted.cred: the checker asks the accounts, the realm gives an avatar, and the avatar says who may send as whom.

The avatar is an IMessageDelivery, so that another checker or another delivery can be put in its place; what the session asks beyond
that interface stands in ISubmissionDelivery, and a delivery without it is taken as it is (`adapted`). Content is not the delivery's
business: the session gives it to the spool once, however many recipients there are. Failure: UnauthorizedLogin at login, whose
`reason` is true and never sent; Refusal afterwards.
"""

from __future__ import annotations

from typing import Any, Callable, Protocol

from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.credentials import IUsernamePassword
from twisted.cred.portal import IRealm, Portal
from twisted.internet.defer import Deferred
from twisted.mail import smtp
from twisted.mail.interfaces import IMessageDelivery
from twisted.python.failure import Failure
from zope.interface import Attribute, implementer

from smtpplus.accounts import unknown
from smtpplus.accounts.authorization import Verdict, authorize, authorize_message, inactive
from smtpplus.accounts.directory import Directory, LoginFailed
from smtpplus.accounts.passwords import Scram
from smtpplus.accounts.settings import server_settings
from smtpplus.accounts.user import User
from smtpplus.config import Configuration
from smtpplus.events import Events, WouldRefuse
from smtpplus.mail import priority, reasons
from smtpplus.mail.header import Header
from smtpplus.mail.reasons import Refusal
from smtpplus.submission import scram
from smtpplus.submission.acceptance import received_field
from smtpplus.submission.credentials import ITrustedClient, LoginRefused
from smtpplus.submission.scram import IProof, IVerifiers, Proof

Hello = tuple[bytes, bytes]  # the name the client gave, and its IP address, as Twisted has them


class Path(smtp.Address):
    """An address that is parsed already, as IMessageDelivery wants it. `identity` is the queue ID of a reverse-path's message."""

    def __init__(self, address: str) -> None:
        local, _, domain = address.rpartition("@")
        self.address = address
        self.addrstr = address.encode("utf-8")
        self.local = local.encode("utf-8")
        self.domain = domain.encode("utf-8")
        self.identity = ""


class Forward(smtp.User):
    """A recipient as IMessageDelivery wants it."""

    def __init__(self, address: str, helo: Hello, protocol: object, orig: Path) -> None:
        self.dest = Path(address)
        self.helo = helo
        self.protocol = protocol
        self.orig = orig


class Mind(Protocol):
    """What an avatar knows of its session."""

    name: str
    client: str

    @property
    def protocol_name(self) -> str:
        """How the message comes in, by RFC 3848: "ESMTPSA"."""

    @property
    def logged_in(self) -> bool:
        """Whether the client has shown that it knows the password; else its network is trusted."""


class ISubmissionDelivery(IMessageDelivery):
    """An IMessageDelivery that also knows the user and reads headers."""

    name: str = Attribute("name of the user")
    list_: str = Attribute("name of the list that the user belongs to")
    level: int = Attribute("the user's priority, 1 highest .. 5")
    ceiling: int = Attribute("the highest priority that the user's mail may have")
    budget: int = Attribute("messages an hour at levels 1 and 2, 0: any number")
    message_size: int | None = Attribute("octets that a message of the user may have; None: what the server says")
    unauthorized: bool = Attribute("whether the message was let through although its sender is not authorized (A19)")

    def validateHeader(sender: str, header: Header) -> None:
        """Raise Refusal unless the user may send what `header` says it is from. `sender` is the envelope's."""


@implementer(ICredentialsChecker, IVerifiers)
class DirectoryChecker:
    """Users, passwords and SCRAM verifiers of the accounts. `key` makes verifiers and marks for users that are not there."""

    credentialInterfaces = (IUsernamePassword, ITrustedClient, IProof)

    def __init__(self, directory: Directory, key: bytes) -> None:
        self._directory = directory
        self._key = key

    def verifier(self, name: str) -> Deferred[Scram]:
        """See IVerifiers. The user is read from the database each time: what is known already must not be answered sooner."""
        return self._directory.read(name).addCallback(lambda user: self._verifier(user, name))

    def _verifier(self, user: User | None, name: str) -> Scram:
        pretended = scram.pretended(self._key, name)
        return pretended if user is None or user.scram is None else Scram.parse(user.scram)

    def requestAvatarId(self, credentials: Any) -> Deferred[bytes | tuple[()]]:
        """The user's name, as avatar ID; fails with LoginRefused."""
        name = credentials.username.decode("utf-8", "replace")
        return self._login(name, credentials).addErrback(self._marked, name)

    def _login(self, name: str, credentials: Any) -> Deferred[bytes | tuple[()]]:
        if isinstance(credentials, Proof):
            return self._directory.read(name).addCallback(_proven, credentials).addCallback(_avatar_id)
        if ITrustedClient.providedBy(credentials):
            return self._directory.find(name).addCallback(_present).addCallback(_avatar_id)
        return self._directory.login(name, credentials.password).addCallbacks(_avatar_id, _refused)

    def _marked(self, failure: Failure, name: str) -> Failure:
        """A refused login with what may be shown of `name`."""
        if isinstance(failure.value, LoginRefused) and not failure.value.user:
            failure.value.user = unknown.mark(self._key, name)
        return failure


def _avatar_id(user: User) -> bytes:
    return user.name.encode("utf-8")


def _present(user: User | None) -> User:
    if user is None:
        raise LoginRefused(reasons.UNKNOWN_USER.code)
    if not user.active:
        raise LoginRefused(inactive(user).code, user.name)
    return user


def _proven(user: User | None, proof: Proof) -> User:
    """The user who gave a right proof and is active. LoginRefused."""
    if user is None:
        raise LoginRefused(reasons.UNKNOWN_USER.code)
    if user.scram is None:
        raise LoginRefused(reasons.NO_SCRAM.code, user.name)
    if not proof.right:
        raise LoginRefused(reasons.WRONG_PASSWORD.code, user.name)
    return _present(user)


def _refused(failure: Failure) -> bytes:
    fault = failure.value
    if isinstance(fault, LoginFailed):
        raise LoginRefused(fault.reason, fault.user) from None
    failure.raiseException()


@implementer(ISubmissionDelivery)
class SubmissionDelivery:
    """What one user may do in one session."""

    __slots__ = ("_configuration", "_directory", "_effective", "_events", "_mind", "_now", "_reported", "_user")

    def __init__(
        self, user: User, mind: Mind | None, *, directory: Directory, configuration: Configuration, events: Events, now: Callable[[], float]
    ) -> None:
        self._user = user
        self._effective = directory.effective(user)
        self._mind = mind
        self._directory = directory
        self._configuration = configuration
        self._events = events
        self._now = now
        self._reported = False

    @property
    def name(self) -> str:
        return self._user.name

    @property
    def list_(self) -> str:
        return self._user.list

    @property
    def level(self) -> int:
        return self._effective.priority

    @property
    def ceiling(self) -> int:
        return self._effective.ceiling

    @property
    def unauthorized(self) -> bool:
        return self._reported

    @property
    def budget(self) -> int:
        return self._effective.budget

    @property
    def message_size(self) -> int:
        user = self._directory.current(self._user) or self._user  # anew: it is asked for before validateFrom
        return self._directory.effective(user).message_size

    def validateFrom(self, helo: Hello, origin: smtp.Address) -> smtp.Address:
        """`origin` if the user may use it as envelope sender; else Refusal. User and settings are looked at anew for each message (A7)."""
        self._look()
        self._reported = False
        address = origin.addrstr.decode("utf-8", "replace")
        self._judge(authorize(self._user, address, require_verified=self._effective.require_verified), address)
        return origin

    def validateTo(self, user: smtp.User) -> Callable[[], Any]:
        """Every recipient is served. What is returned is never called: the session gives the content to the spool, once."""
        return _spooled

    def receivedHeader(self, helo: Hello, origin: smtp.Address, recipients: list[smtp.User]) -> bytes:
        """The Received field, RFC 5321 §4.4."""
        return received_field(
            hello=helo[0].decode("ascii", "backslashreplace"),
            address=helo[1].decode("ascii", "backslashreplace"),
            hostname=self._configuration.hostname,
            protocol=self._mind.protocol_name if self._mind else "ESMTPA",
            identity=getattr(origin, "identity", ""),
            now=self._now(),
        )

    def validateHeader(self, sender: str, header: Header) -> None:
        """Refusal unless every address of From and Sender, and of their Resent- kind, is the user's to use (A13, A17).

        User and settings are looked at again: what changed since MAIL is in force before a message is taken (A7).
        """
        self._look()
        verdict = authorize_message(
            self._user,
            sender,
            header.values("from"),
            header.values("sender"),
            require_verified=self._effective.require_verified,
            resent=(header.values("resent-from"), header.values("resent-sender")),
        )
        self._judge(verdict, sender)

    def _look(self) -> None:
        """Take up what user and settings are now. Refusal if the user is gone or inactive; a password that was reset ends what the old
        one began."""
        user = self._directory.current(self._user)
        if user is None or not user.active:
            reason = reasons.UNKNOWN_USER if user is None else inactive(user)
            raise Refusal(reasons.AUTH_REQUIRED.reply(), reason.code)
        if user.password != self._user.password and (self._mind is None or self._mind.logged_in):
            raise Refusal(reasons.AUTH_REQUIRED.reply(), reasons.PASSWORD_CHANGED.code)
        self._user = user
        self._effective = self._directory.effective(user)

    def _judge(self, verdict: Verdict, sender: str) -> None:
        """Block, or in alert mode say what block mode would have done (A19, A20), once for one message."""
        if verdict.allowed:
            return
        refusal = verdict.refusal or reasons.ADDRESS_NOT_AUTHORIZED.refusal()
        if self._effective.unauthorized == "block":
            raise refusal
        if self._reported:
            return
        self._reported = True
        session, client = (self._mind.name, self._mind.client) if self._mind else ("", "")
        about = verdict.address or sender
        self._events.state(WouldRefuse(self._now(), session, client, self._user.name, about, refusal.reason, str(refusal.reply)))


def _spooled() -> Any:
    raise smtp.SMTPServerError(451, "content goes to the spool, not to a message object")


@implementer(ISubmissionDelivery)
class PlainDelivery:
    """A delivery that is no more than IMessageDelivery: its user is unknown, and headers are not checked."""

    name = ""
    list_ = "default"
    level = priority.NORMAL
    ceiling = priority.HIGHEST
    budget = 0
    message_size = None
    unauthorized = False

    def __init__(self, delivery: Any) -> None:
        self.validateFrom = delivery.validateFrom
        self.validateTo = delivery.validateTo
        self.receivedHeader = delivery.receivedHeader

    def validateHeader(self, sender: str, header: Header) -> None:
        return


def adapted(delivery: Any) -> Any:
    """`delivery`, an IMessageDelivery, as an ISubmissionDelivery."""
    return delivery if ISubmissionDelivery.providedBy(delivery) else PlainDelivery(delivery)


@implementer(IRealm)
class SubmissionRealm:
    """Gives each session that logs in its SubmissionDelivery."""

    def __init__(self, directory: Directory, configuration: Configuration, events: Events, now: Callable[[], float]) -> None:
        self._directory = directory
        self._configuration = configuration
        self._events = events
        self._now = now

    def requestAvatar(self, avatarId: bytes | tuple[()], mind: Any, *interfaces: Any) -> Deferred[tuple[Any, Any, Callable[[], None]]]:
        """`avatarId` is the name of a user, `mind` the session. Fails with LoginRefused if the user is gone or not active."""
        if IMessageDelivery not in interfaces or not isinstance(avatarId, bytes):
            raise NotImplementedError("only users, and only with IMessageDelivery, are to be had here")
        return self._directory.find(avatarId.decode("utf-8", "replace")).addCallback(_present).addCallback(self._avatar, mind)

    def _avatar(self, user: User, mind: Any) -> tuple[Any, Any, Callable[[], None]]:
        avatar = SubmissionDelivery(
            user, mind, directory=self._directory, configuration=self._configuration, events=self._events, now=self._now
        )
        return IMessageDelivery, avatar, _logout


def _logout() -> None:
    """Nothing is held for a session."""


def make_portal(directory: Directory, configuration: Configuration, events: Events, now: Callable[[], float]) -> Portal:
    """The portal of the accounts. What the configuration sets for users is in force from now on."""
    directory.server = server_settings(configuration)
    return Portal(
        SubmissionRealm(directory, configuration, events, now),
        [DirectoryChecker(directory, scram.load_key(configuration.state_directory))],
    )
