"""What is under way, as the running daemon said last: a second old at most.

A row of the queue cannot tell: the time of its next attempt is over when a transfer takes longer than that, or is moved while it lasts.
The daemon writes what it transfers with all that only its memory knows (standing), and who looks at the queue reads that part of it here.
Nothing is known while no daemon runs; what began since the daemon's last word is not among it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

import msgspec
from sqlalchemy import Connection, select

from smtpplus.mail.envelope import parse_queue_id
from smtpplus.storage import schema

NAME = "queue"  # of the row of schema.status
LISTED = 1000  # transfers that are said, those that run longest
FEW = 20  # recipients of one transfer that are said one by one


class RunningTransfer(msgspec.Struct, frozen=True):
    """A transfer under way: the queue ID, and the numbers of its recipients, or none for all of the message at that destination."""

    id: str
    destination: str
    numbers: tuple[int, ...] = ()


class UnderWay:
    """Which recipients are attempted now; none if no daemon runs."""

    def __init__(self, transfers: Iterable[RunningTransfer] = ()) -> None:
        self._numbers = {(parse_queue_id(each.id), each.destination): each.numbers for each in transfers}
        self.ids = sorted({number for number, _ in self._numbers})  # of messages

    def has(self, message: int, number: int, destination: str) -> bool:
        """Whether that recipient is attempted now."""
        numbers = self._numbers.get((message, destination))
        return numbers is not None and (not numbers or number in numbers)


class _Standing(msgspec.Struct, frozen=True):
    transfers: tuple[RunningTransfer, ...] | None = None


class _Row(msgspec.Struct, frozen=True):
    process: int
    standing: _Standing


def read(connection: Connection) -> UnderWay:
    """What is under way now."""
    s = schema.status.c
    value: Any = connection.scalar(select(s.value).where(s.name == NAME))
    said = msgspec.json.decode(value, type=_Row) if value is not None else None
    if said is None or said.standing.transfers is None or not alive(said.process):
        return UnderWay()
    return UnderWay(said.standing.transfers)


def alive(process: int) -> bool:
    """Whether a process of this machine with that id runs."""
    if not process:
        return False
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
