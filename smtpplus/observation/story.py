"""The story of a message: its events in the short form that the history keeps, and back again.

A story is a JSON list of lists: the name of an event's class, then its fields in their order without the message's own id. Fields that
were added to a class later are missing at the end of older stories and get their defaults. A story that cannot be read (an event that
is no more, a damaged row) is left out, and never raises.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from operator import attrgetter
from typing import Any

import msgspec

from smtpplus import events
from smtpplus.events import Event

_LATE = 10.0  # seconds by which an event may be stated late
Chapter = tuple[Any, ...]  # the class's name, then the fields

_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(list[list[Any]])
_getters: dict[type[Event], Callable[[Any], Chapter]] = {}


def kinds() -> tuple[type[Event], ...]:
    """The classes of events that are about one message, Accepted excepted: it is the row itself."""
    return tuple(kind for kind in all_events() if "id" in kind.__struct_fields__ and kind is not events.Accepted)


def all_events() -> tuple[type[Event], ...]:
    """Every class of event, in the order of events.py."""
    return tuple(kind for kind in vars(events).values() if isinstance(kind, type) and issubclass(kind, Event) and kind is not Event)


def chapter(event: Event) -> Chapter:
    """An event in short form."""
    kind = type(event)
    getter = _getters.get(kind)
    if getter is None:
        getter = _getters[kind] = attrgetter(*(name for name in kind.__struct_fields__ if name != "id"))
    return (kind.__name__, *getter(event))


def encode(chapters: Iterable[Chapter]) -> str:
    """What is stored."""
    return _encoder.encode(chapters).decode("utf-8")


def decode(name: str, stories: Iterable[str]) -> list[Event]:
    """The events of the message `name` (its queue ID), in order: by time, but for a clock that was set back meanwhile."""
    found = [event for story in stories for short in chapters(story) if (event := _event(name, short)) is not None]
    return ordered(found)


def ordered(told: Sequence[Event]) -> list[Event]:
    """Events that were stated one after the other, by time; one that is much older than that before it was stated by a clock set back."""
    times: list[tuple[int, float]] = []
    spell, latest = 0, 0.0
    for event in told:
        back = event.at < latest - _LATE
        spell, latest = (spell + 1, event.at) if back else (spell, max(latest, event.at))
        times.append((spell, event.at))
    return [told[index] for index in sorted(range(len(told)), key=times.__getitem__)]


def chapters(story: str) -> list[list[Any]]:
    """The events of a story in short form, as they are stored: the class's name, then the fields but the id; none if it is damaged."""
    try:
        return _decoder.decode(story) if story else []
    except msgspec.DecodeError:
        return []


def _event(name: str, short: list[Any]) -> Event | None:
    kind = _KINDS.get(short[0]) if short else None
    if kind is None:
        return None
    fields = [field for field in kind.__struct_fields__ if field != "id"]
    try:
        return msgspec.convert({"id": name, **dict(zip(fields, short[1:], strict=False)), "event": kind.__name__}, kind)
    except msgspec.ValidationError:
        return None


_TOLD: tuple[type[Event], ...] = (*kinds(), events.WouldRefuse)  # the latter is stated before its message has an id
_KINDS = {kind.__name__: kind for kind in _TOLD}
