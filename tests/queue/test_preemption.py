"""Preemption: who is stopped, until when, and that every stop ends."""

from __future__ import annotations

from twisted.internet.task import Clock

from smtpplus.events import Event, Events, Paused, Resumed
from smtpplus.mail.disposition import Request
from smtpplus.queue.entry import Entry
from smtpplus.queue.preemption import LOWEST, MAX_PAUSE_REACHED, RULE_ENDED, SLOT_WANTED, TRANSFER_ENDED, URGENT_MAIL_SENT, Preemption
from tests.queue.fixtures import Held, entry


class House:
    """A preemption with its clock, its events, and transfers to run under it."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.events: list[Event] = []
        bus = Events()
        bus.subscribe(self.events.append)
        self.preemption = Preemption(levels=frozenset({1, 2}), max_pause=30.0, clock=self.clock, now=self.clock.seconds, events=bus)

    def run(self, one: Entry) -> Held:
        """Let a transfer for `one` run."""
        message = one.message
        held = Held(Request(message.envelope, one.recipients, one.destination, message.content, 1), lambda _: None)
        self.preemption.began(one, held)
        return held


def test_running_bulk_stops_while_urgent_mail_is_sent() -> None:
    """A27 (b), (d): from demand to withdrawal a lower transfer is stopped, then it goes on; both are events with their cause."""
    house = House()
    bulk = house.run(entry(1, 3))
    urgent = entry(2, 1)
    house.preemption.demand(urgent)
    stopped = [bulk.stopped]
    house.clock.advance(4)
    house.preemption.withdraw(urgent)
    stopped.append(bulk.stopped)
    assert stopped == [True, False]
    paused, resumed = house.events
    assert isinstance(paused, Paused)
    assert (paused.id, paused.cause) == (entry(1).message.name, urgent.message.name)
    assert isinstance(resumed, Resumed)
    assert (resumed.stopped, resumed.why) == (4.0, URGENT_MAIL_SENT)
    assert house.clock.getDelayedCalls() == []


def test_only_lower_levels_stop() -> None:
    """A27: level 2 stops 3, 4 and 5, but neither 1 nor 2; level 3 stops nobody."""
    house = House()
    running = {level: house.run(entry(level, level)) for level in range(1, 6)}
    house.preemption.demand(entry(10, 3))
    assert [level for level, held in running.items() if held.stopped] == []
    house.preemption.demand(entry(11, 2))
    assert [level for level, held in running.items() if held.stopped] == [3, 4, 5]
    house.preemption.demand(entry(12, 1))
    assert [level for level, held in running.items() if held.stopped] == [2, 3, 4, 5]


def test_a_transfer_that_begins_under_a_demand_is_stopped_at_once() -> None:
    """A27 (a): what was on its way to start when urgent mail came writes nothing before it may."""
    house = House()
    urgent = entry(1, 1)
    house.preemption.demand(urgent)
    bulk = house.run(entry(2, 3))
    stopped = [bulk.stopped]
    house.preemption.withdraw(urgent)
    stopped.append(bulk.stopped)
    assert stopped == [True, False]


def test_nothing_is_stopped_after_its_final_dot() -> None:
    """A27: a transfer that only waits for its last reply is left alone."""
    house = House()
    bulk = house.run(entry(1, 3))
    bulk.final_dot_sent = True
    house.preemption.demand(entry(2, 1))
    assert (bulk.stops, house.events) == (0, [])


def test_a_stop_is_bounded() -> None:
    """D1: an urgent message that does not end stops a transfer for max_pause, then it goes on for good."""
    house = House()
    bulk = house.run(entry(1, 3))
    house.preemption.demand(entry(2, 1))
    stopped = []
    for seconds in (29.9, 0.2):
        house.clock.advance(seconds)
        stopped.append(bulk.stopped)
    assert stopped == [True, False]
    assert isinstance(house.events[-1], Resumed)
    house.preemption.demand(entry(3, 1))
    assert not bulk.stopped


def test_stops_add_up_to_the_bound() -> None:
    """D1: many short stops together last at most max_pause; then the transfer is immune."""
    house = House()
    bulk = house.run(entry(1, 3))
    for number in range(10, 16):
        urgent = entry(number, 1)
        house.preemption.demand(urgent)
        house.clock.pump([1] * 7)
        house.preemption.withdraw(urgent)
    stopped = [event for event in house.events if isinstance(event, Resumed)]
    assert sum(event.stopped for event in stopped) == 30.0
    assert stopped[-1].why == MAX_PAUSE_REACHED
    assert not bulk.stopped


def test_a_demand_is_bounded() -> None:
    """D1: an urgent message that never ends holds back new starts for max_pause at most."""
    house = House()
    house.preemption.demand(entry(1, 1))
    assert house.preemption.ceiling == 1
    house.clock.advance(30.1)
    assert house.preemption.ceiling == LOWEST
    assert house.clock.getDelayedCalls() == []


def test_the_end_frees_everybody() -> None:
    """At shutdown every stopped transfer goes on."""
    house = House()
    bulk = house.run(entry(1, 3))
    house.preemption.demand(entry(2, 2))
    house.preemption.end()
    assert not bulk.stopped
    assert house.clock.getDelayedCalls() == []


def test_a_stream_of_urgent_mail_leaves_half_the_time() -> None:
    """D1: urgent messages that come one after the other, each to a next hop that hangs, stop others half of the time at most."""
    house = House()
    free = 0
    for second in range(1200):
        if second % 20 == 0:
            house.preemption.demand(entry(second, 1))
        house.clock.advance(1)
        free += house.preemption.ceiling == LOWEST
    assert free >= 1200 / 2 - 30


def test_rare_urgent_mail_always_stops_others() -> None:
    """A27: urgent messages that are soon sent find their credit whole, however many there are in a day."""
    house = House()
    for number in range(500):
        bulk = house.run(entry(10_000 + number, 3))
        urgent = entry(number, 1)
        house.preemption.demand(urgent)
        assert bulk.stopped
        house.clock.advance(2)
        house.preemption.withdraw(urgent)
        house.clock.advance(10)


def test_who_is_stopped_by_a_rule_stops_nobody() -> None:
    """A31, D1: an urgent transfer that a rule stops holds nobody back; when the rule is lifted it does again, until it has run."""
    house = House()
    bulk, urgent = house.run(entry(1, 3)), entry(2, 1)
    house.preemption.demand(urgent)
    running = house.run(urgent)
    stopped = []
    for rule in (lambda each: "a rule" if each is urgent else "", None):
        house.preemption.obey(rule)
        stopped.append((running.stopped, bulk.stopped))
    assert stopped == [(True, False), (False, True)]
    house.preemption.withdraw(urgent)
    assert not bulk.stopped


def test_who_has_the_slot_that_urgent_mail_waits_for_goes_on() -> None:
    """A27 (c), D1: where stopped transfers have all slots, the most urgent of them goes on to its end, whoever else demands; only a rule
    stops it. Elsewhere all stay stopped, and no second one goes on beside it."""
    house = House()
    running = [house.run(entry(number, level, destination=name)) for number, level, name in ((1, 5, "x"), (2, 3, "x"), (3, 3, "y"))]
    house.preemption.demand(entry(4, 1))
    seen = []
    for _ in range(2):
        house.preemption.relieve(lambda name, stopped, ceiling: (name, stopped, ceiling) == ("x", 2, 1), 0)
        seen.append([held.stopped for held in running])
    house.preemption.demand(entry(5, 1))
    house.preemption.renew(entry(5, 1))
    seen.append([held.stopped for held in running])
    for rule in (lambda each: "a rule", None):
        house.preemption.obey(rule)
        seen.append([held.stopped for held in running])
    assert seen == [[True, False, True]] * 3 + [[True] * 3, [True, False, True]]
    resumed = house.events[3]
    assert isinstance(resumed, Resumed)
    assert (resumed.id, resumed.why) == (entry(2).message.name, SLOT_WANTED)


def test_one_goes_on_where_the_house_is_full() -> None:
    """A27 (c): it is the same with the slots of the house, wherever those go that have them; while one of them runs, none is pressed."""
    house = House()
    running = [house.run(entry(number, 3, destination=f"d{number}.net")) for number in (1, 2)]
    house.preemption.demand(entry(4, 1))
    seen = []
    for taken in (0, 3, 2, 2):
        house.preemption.relieve(lambda name, stopped, ceiling: False, taken)
        seen.append([held.stopped for held in running])
    assert seen == [[True, True]] * 2 + [[False, True]] * 2


def test_a_demand_may_be_shorter_and_may_begin_anew() -> None:
    """A27: a demand that lasts a second lets others go after it, one that is renewed stops them as any does, and at the end none."""
    house = House()
    bulk, urgent = house.run(entry(1, 3)), entry(2, 1)
    house.preemption.demand(urgent, 1.0)
    house.clock.advance(1)
    stopped = [bulk.stopped]
    house.preemption.renew(urgent)
    house.clock.advance(28)
    stopped.append(bulk.stopped)
    house.preemption.end()
    house.preemption.renew(urgent)
    house.preemption.demand(entry(3, 1))
    stopped.append(bulk.stopped)
    assert stopped == [False, True, False]
    assert house.clock.getDelayedCalls() == []


def test_what_is_under_way_is_said() -> None:
    """A31: each transfer with its recipients, until it has ended."""
    house = House()
    one = entry(1, 3)
    house.run(one)
    house.run(entry(2, 3))
    house.preemption.ended(one)
    (said,) = house.preemption.transfers()
    assert (said.id, said.destination, said.numbers) == (entry(2).message.name, entry(2).destination, entry(2).numbers)


def accounts(house: House) -> list[tuple[str, float | str]]:
    """The stops as they were stated: the cause of each, and its seconds."""
    told: list[tuple[str, float | str]] = []
    for event in house.events:
        if isinstance(event, Paused):
            told.append(("by", event.cause))
        elif isinstance(event, Resumed):
            told.append((event.why, event.stopped))
    return told


def test_each_cause_has_its_own_account() -> None:
    """D1, D3: who is stopped on by something else is told so, and each cause has its own seconds; together they last max_pause at most."""
    house = House()
    bulk, urgent = house.run(entry(1, 3)), entry(2, 1)
    house.preemption.demand(urgent)
    house.clock.advance(2)
    house.preemption.obey(lambda each: "rule 1" if each.level == 3 else "")
    house.clock.advance(2)
    house.preemption.withdraw(urgent)
    assert house.preemption.stopped()[0].cause == "rule 1"
    house.clock.advance(3)
    other = entry(3, 1)
    house.preemption.demand(other)
    house.preemption.obey(None)
    assert house.preemption.stopped()[0].cause == other.message.name
    assert bulk.stops == 1
    stopped = []
    for seconds in (22.9, 0.2):
        house.clock.advance(seconds)
        stopped.append(bulk.stopped)
    assert stopped == [True, False]
    assert [(what, round(value, 1) if isinstance(value, float) else value) for what, value in accounts(house)] == [
        ("by", urgent.message.name),
        (URGENT_MAIL_SENT, 4.0),
        ("by", "rule 1"),
        (RULE_ENDED, 3.0),
        ("by", other.message.name),
        (MAX_PAUSE_REACHED, 23.1),
    ]


def test_urgent_messages_hand_over_once_a_second() -> None:
    """D3: of urgent messages that pass one after the other the one that is there a second later is named, and no other."""
    house = House()
    house.run(entry(1, 3))
    urgent = [entry(number, 1) for number in range(2, 8)]
    for each in urgent:
        house.preemption.demand(each)
    for each in urgent[:4]:
        house.clock.advance(0.1)
        house.preemption.withdraw(each)
    assert house.preemption.stopped()[0].cause == urgent[0].message.name
    house.clock.advance(1.0)
    assert house.preemption.stopped()[0].cause == urgent[4].message.name
    assert len(house.events) == 3


def test_a_stop_ends_with_its_attempt() -> None:
    """D3: a transfer that ends while it is stopped is stopped no more, and says for how long it was."""
    house = House()
    one = entry(1, 3)
    house.run(one)
    house.preemption.demand(entry(2, 1))
    house.clock.advance(2)
    house.preemption.ended(one)
    assert accounts(house)[1:] == [(TRANSFER_ENDED, 2.0)]
