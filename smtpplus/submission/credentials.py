"""What a client shows to be let in besides name and password, and how the portal says no: values between session and checker."""

from __future__ import annotations

from twisted.cred.error import UnauthorizedLogin
from zope.interface import Attribute, Interface, implementer


class ITrustedClient(Interface):
    """Credentials of a client whose network is trusted: it acts for `username` without a password."""

    username: bytes = Attribute("name of the user")


@implementer(ITrustedClient)
class TrustedClient:
    """See ITrustedClient."""

    __slots__ = ("username",)

    def __init__(self, username: str) -> None:
        self.username = username.encode("utf-8")


class LoginRefused(UnauthorizedLogin):
    """`reason` is a code of mail.reasons, and `user` a user's name or the mark of one that nobody has (accounts.unknown), for log and
    alerts; the client gets LOGIN_FAILED whatever they are."""

    def __init__(self, reason: str, user: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.user = user
