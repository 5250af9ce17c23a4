"""What a connection says of itself to whoever keeps it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from smtpplus.delivery.transfer import Transfer

if TYPE_CHECKING:
    from smtpplus.delivery.client import Connection


class Keeper(Protocol):
    """The pool, as its connections see it."""

    def free(self, connection: Connection) -> None:
        """A transaction is over and the next may begin at once."""

    def gone(self, connection: Connection) -> None:
        """The connection takes no more transactions."""

    def held(self, connection: Connection) -> None:
        """The transfer on the connection was stopped."""

    def again(self, transfer: Transfer) -> None:
        """The transfer wants another connection: the one it had was dead, and answered nothing, or is over, and recipients are left."""

    def unfinished(self, connection: Connection, transfer: Transfer) -> None:
        """A transaction is over and the next may begin at once; the transfer, of which recipients are left, wants it."""
