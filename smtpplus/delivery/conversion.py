"""The content of an 8-bit message in 7 bits (mail.seven_bit), piece by piece: no more than a piece is in memory, however long it is."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Set

from twisted.internet.defer import Deferred

from smtpplus.mail.envelope import Content
from smtpplus.mail.seven_bit import Conversion, Survey, Unconvertible


class Lost(Exception):
    """A piece of the content cannot be read."""


async def converted(content: Content) -> Content:
    """The same message in 7 bits. Raises Unconvertible, or Lost."""
    survey = Survey()
    async for piece in pieces(content):
        survey.feed(piece)
    survey.finish()
    conversion, size = Conversion(survey.leaves), 0
    async for piece in pieces(content):
        size += len(conversion.feed(piece))
    return Converted(content, survey.leaves, size + len(conversion.finish()))


async def pieces(content: Content) -> AsyncIterator[bytes]:
    """One after the other; Lost if one cannot be read."""
    for index in range(content.chunks):
        arrived: Deferred[bytes | None] = Deferred()
        content.read(index, arrived.callback)
        piece = await arrived
        if piece is None:
            raise Lost
        yield piece


class Converted:
    """A content that is converted while it is read: from the first piece to the last, or again from the first. One at a time reads it; a
    piece becomes three times as large at most."""

    __slots__ = ("_content", "_conversion", "_leaves", "_next", "chunks", "size")

    def __init__(self, content: Content, leaves: Set[int], size: int) -> None:
        self._content = content
        self._leaves = leaves
        self._conversion = Conversion(leaves)
        self._next = 0
        self.size = size
        self.chunks = content.chunks

    def read(self, index: int, done: Callable[[bytes | None], None]) -> None:
        """See mail.envelope.Content."""
        if index == 0:
            self._conversion, self._next = Conversion(self._leaves), 0
        if index != self._next:
            done(None)
            return
        self._next += 1
        conversion, last = self._conversion, self._next == self.chunks

        def arrived(piece: bytes | None) -> None:
            if piece is None:
                done(None)
                return
            try:
                octets = conversion.feed(piece) + (conversion.finish() if last else b"")
            except Unconvertible:  # it is not what it was when it was looked through
                done(None)
                return
            done(octets)

        self._content.read(index, arrived)
