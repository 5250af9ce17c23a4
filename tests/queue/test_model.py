"""The queue as a whole under anything that can happen, checked at every step (A24 to A31, D1).

The real rooms, assembled as in the daemon, over a real database whose commits, faults and clocks the machine decides about, with a next
hop that does whatever it likes. What must hold:

* while a preempting message is ready or running, no transfer of a lower level writes, and none that could start does, but one that has
  the slot which the preempting message waits for;
* no transfer is stopped longer than `max_pause` in all, and every stopped one goes on;
* nothing is lost, doubled, or starved: when the world calms down, each recipient was delivered or failed exactly once.
"""

from __future__ import annotations

import collections
from collections.abc import Callable
from typing import Any

import msgspec
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from twisted.internet.task import Clock

from smtpplus.config import Configuration, Delivery, Priority
from smtpplus.config import Queue as QueueSettings
from smtpplus.events import Event, Events, Resumed
from smtpplus.mail.disposition import Disposition, Request, Told
from smtpplus.mail.envelope import Envelope, queue_id
from smtpplus.mail.reply import Reply
from smtpplus.queue import actions
from smtpplus.queue.assembly import assemble
from smtpplus.queue.preemption import SLOT_WANTED
from smtpplus.queue.rules import Kind, Rule, Rules
from smtpplus.queue.selection import QueueView, Selection
from tests.queue.fixtures import LATER, NEVER, OK, Held, envelope
from tests.queue.house import CONTENT
from tests.queue.inline import InlineDatabase

MAX_PAUSE = 30.0
CONNECTIONS, LIMIT = 4, 2  # slots, in all and at a destination
CONFIGURATION = Configuration(
    hostname="relay.example.com",
    delivery=Delivery(connections=CONNECTIONS, per_destination=LIMIT, reserved_for_preempting=1),
    priority=Priority(max_pause=MAX_PAUSE),
    queue=QueueSettings(retry=(60.0, 300.0)),
)
DESTINATIONS = ("x.net", "y.net", "z.net")


class Transfer(Held):
    """A transfer with an account of its stops, kept by the test itself."""

    def __init__(self, request: Request, done: Callable[[list[Disposition]], None], seconds: Callable[[], float]) -> None:
        super().__init__(request, done)
        self._seconds = seconds
        self._since = 0.0
        self._before = 0.0

    @property
    def total(self) -> float:
        """For how long it was stopped in all."""
        return self._before + (self._seconds() - self._since if self.stopped else 0.0)

    def stop(self) -> bool:
        before = self.stopped
        accepted = super().stop()
        if accepted and not before:
            self._since = self._seconds()
        return accepted

    def go(self) -> None:
        if self.stopped:
            self._before = self.total
        super().go()

    @property
    def level(self) -> int:
        return self.request.envelope.level


class Hop:
    """Begins every attempt, and remembers the running ones."""

    def __init__(self, seconds: Callable[[], float]) -> None:
        self.running: list[Transfer] = []
        self._seconds = seconds

    def deliver(self, request: Request, done: Told, taken: Told | None = None) -> Transfer:
        transfer = Transfer(request, lambda dispositions: self._ended(transfer, dispositions, done), self._seconds)
        self.running.append(transfer)
        return transfer

    def prepare(self, envelope: Envelope, destination: str) -> None:
        """It needs no connection."""

    def _ended(self, transfer: Transfer, dispositions: list[Disposition], done: Callable[[list[Disposition]], None]) -> None:
        self.running.remove(transfer)
        done(dispositions)


class House(RuleBasedStateMachine):
    """A queue and everything around it."""

    @initialize()
    def begin(self) -> None:
        self.clock = Clock()
        self.clock.advance(1000.0)
        self.offset = self.latest = 1_000_000.0
        self.database = InlineDatabase()
        self.hop = Hop(self.clock.seconds)
        events = Events()
        events.subscribe(self.went_on)
        self.queue = assemble(
            configuration=CONFIGURATION,
            database=self.database,  # type: ignore[arg-type]  # the same interface without threads
            agent=self.hop,
            destination=lambda domain: domain,
            clock=self.clock,
            now=self.now,
            process=1,
            events=events,
        )
        self.pressed: set[tuple[str, str]] = set()  # queue ids and destinations
        self.queue.scheduler.start()
        self.accepted: dict[int, Envelope] = {}
        self.ready_since: dict[int, float] = {}  # of preempting messages that nothing has hindered yet
        self.in_force: list[Rule] = []
        self.cancelled: set[int] = set()
        self.outcomes: collections.Counter[tuple[int, str]] = collections.Counter()
        self.settle()

    def went_on(self, event: Event) -> None:
        """A transfer that is pressed has one of the slots that are all taken, at its destination or in the house, by who is stopped."""
        if isinstance(event, Resumed) and event.why == SLOT_WANTED:
            self.pressed.add((event.id, event.destination))
            there = [each for each in self.hop.running if each.request.destination == event.destination]
            assert len(self.hop.running) == CONNECTIONS or (len(there) == LIMIT and all(each.stopped for each in there))

    def now(self) -> float:
        return self.clock.seconds() + self.offset

    def settle(self) -> None:
        """Let everything happen that follows without time passing, but no commit."""
        for _ in range(20):
            self.clock.advance(0)

    # What can happen.

    @rule(
        level=st.integers(1, 5),
        user=st.sampled_from("ab"),
        to=st.lists(st.sampled_from(DESTINATIONS), min_size=1, max_size=2, unique=True),
        later=st.sampled_from([0.0, 0.0, 0.0, 40.0]),
    )
    def arrive(self, level: int, user: str, to: list[str], later: float) -> None:
        number = self.queue.new_id()
        made = envelope(number, level, user, *(f"r@{domain}" for domain in to), at=self.now())
        made = msgspec.structs.replace(made, release_at=self.now() + later if later else 0.0)

        def kept(_: object) -> None:
            self.accepted[number] = made
            open_ = not any(self.queue.scheduler._ready.destination(domain).closed for domain in to)
            if level <= 2 and len(to) == 1 and open_ and not later and not self.in_force:
                self.ready_since[number] = self.clock.seconds()

        self.queue.spool.accept(made, CONTENT).addCallbacks(kept, lambda failure: None)
        self.settle()

    @rule()
    def commit(self) -> None:
        self.database.commit()
        self.settle()

    @precondition(lambda self: self.hop.running)
    @rule(which=st.integers(0, 9), reply=st.sampled_from([OK, OK, OK, LATER, NEVER]), reached=st.booleans())
    def end(self, which: int, reply: Reply, reached: bool) -> None:
        transfer = self.hop.running[which % len(self.hop.running)]
        if transfer.stopped and not transfer.final_dot_sent:
            return  # who does not write is not answered
        self.finish(transfer, reply, reached=reached or reply is not LATER)
        self.settle()

    def finish(self, transfer: Transfer, reply: Reply, *, reached: bool = True) -> None:
        number = transfer.request.envelope.id
        if reply is not LATER:
            for recipient in transfer.request.recipients:
                self.outcomes[number, recipient.address] += 1
        self.ready_since.pop(number, None)
        transfer.end(reply, peer="mx[192.0.2.1]:25" if reached else "")

    @precondition(lambda self: self.hop.running)
    @rule(which=st.integers(0, 9))
    def final_dot(self, which: int) -> None:
        transfer = self.hop.running[which % len(self.hop.running)]
        if not transfer.stopped:
            transfer.final_dot_sent = True

    @rule(seconds=st.sampled_from([0.3, 1.0, 7.0, 31.0, 61.0]))
    def pass_time(self, seconds: float) -> None:
        left = seconds
        while left > 0.0:
            self.clock.advance(min(0.25, left))
            left -= 0.25
        self.settle()

    @rule(seconds=st.sampled_from([-7200.0, -30.0, 30.0, 7200.0]))
    def set_the_clock(self, seconds: float) -> None:
        self.offset += seconds
        self.latest = max(self.latest, self.offset)
        self.pass_time(0.3)

    @rule(broken=st.booleans())
    def fault(self, broken: bool) -> None:
        self.database.broken = broken

    @rule(
        selector=st.sampled_from([("everything", ""), ("level", "3"), ("user", "a"), ("destination", "x.net"), ("list", "default")]),
        stop=st.booleans(),
    )
    def hold(self, selector: tuple[Kind, str], stop: bool) -> None:
        self.obey([*self.in_force, Rule(len(self.in_force) + 1, *selector, running="stop" if stop else "finish")])

    @precondition(lambda self: self.in_force)
    @rule()
    def lift(self) -> None:
        self.obey(self.in_force[1:])

    def obey(self, rules: list[Rule]) -> None:
        self.in_force = rules
        self.ready_since.clear()
        self.queue.scheduler.obey(Rules(rules, self.now()))
        self.settle()

    @precondition(lambda self: self.accepted)
    @rule(which=st.integers(0, 99), due=st.sampled_from([None, 0.0, 50.0]))
    def change(self, which: int, due: float | None) -> None:
        """Another process cancels a message, or lets it be due at another time."""
        number = list(self.accepted)[which % len(self.accepted)]
        with self.database.connection.begin():
            view = QueueView(self.database.connection, Rules(), lambda domain: domain, self.now())
            some = list(view.select(Selection(ids=(number,))))
            if due is None:
                actions.cancel(self.database.connection, some, who="me", reason="", now=self.now())
                self.cancelled.update({number} if some else ())
            else:
                actions.move(self.database.connection, some, due and self.now() + due, who="me", reason="", now=self.now())
        self.ready_since.pop(number, None)
        keys = {each.key for each in some}
        self.queue.scheduler.changed({number}, keys if due is None else ())
        self.settle()

    # What must hold.

    @invariant()
    def nothing_lower_writes_beside_urgent_mail(self) -> None:
        """A27 (a), (b): no transfer of a lower level writes while an urgent message is ready or running, unless its own bound, or that
        of all, is reached."""
        if not getattr(self, "ready_since", None) or self.queue.scheduler._preemption.spent:
            return
        for number, since in self.ready_since.items():
            if (
                self.clock.seconds() - since >= MAX_PAUSE - 0.5
                or self.queue.scheduler._ready.destination(_domain(self.accepted[number])).closed
            ):
                continue
            level = self.accepted[number].level
            for transfer in self.hop.running:
                pressed = (queue_id(transfer.request.envelope.id), transfer.request.destination) in self.pressed
                if transfer.level > level and not (transfer.final_dot_sent or pressed):
                    assert transfer.stopped or transfer.total >= MAX_PAUSE - 0.001, f"{transfer.level} writes beside {level}"

    @invariant()
    def stops_are_bounded(self) -> None:
        """D1: no transfer is stopped longer than its bound in all."""
        for transfer in getattr(self, "hop", Hop(float)).running:
            assert transfer.total <= MAX_PAUSE + 0.25 + 0.001  # time passes by quarters of a second

    @invariant()
    def nothing_is_stopped_for_nobody(self) -> None:
        """A27: what was stopped goes on when no urgent mail of a higher level is ready or running, not only when its bound is reached. As
        long as something is to be written the queue may not know yet."""
        if not hasattr(self, "hop") or self.database.broken or self.database.waits or any(each.running == "stop" for each in self.in_force):
            return
        stopped = [transfer.level for transfer in self.hop.running if transfer.stopped]
        if stopped:
            urgent = [transfer.level for transfer in self.hop.running if transfer.level <= 2]
            with self.database.connection.begin():
                ready = f"SELECT level FROM recipients WHERE level <= 2 AND due <= {self.clock.seconds() + self.latest}"
                urgent += self.database.connection.exec_driver_sql(ready).scalars()
            assert urgent, f"{stopped} are stopped, and nothing is urgent"
            assert min(stopped) > min(urgent)

    @invariant()
    def nothing_is_doubled(self) -> None:
        """C2: no recipient has two attempts under way, or goes on after it was settled."""
        if not hasattr(self, "hop"):
            return
        under_way = collections.Counter(
            (transfer.request.envelope.id, recipient.address) for transfer in self.hop.running for recipient in transfer.request.recipients
        )
        assert not [key for key, count in (under_way + self.outcomes).items() if count > 1]

    @invariant()
    def slots_are_kept(self) -> None:
        """C3: the house's slots and each destination's are never exceeded, by urgent mail neither; what is reserved nobody else has."""
        running = getattr(self, "hop", Hop(float)).running
        assert len(running) <= CONNECTIONS
        for domain in DESTINATIONS:
            levels = [transfer.level for transfer in running if transfer.request.destination == domain]
            assert len(levels) <= LIMIT
            assert len([level for level in levels if level > 2]) <= LIMIT - 1

    def teardown(self) -> None:
        """The world calms down: every next hop takes what it gets, and in the end nothing is left and nothing was missed."""
        if not hasattr(self, "hop"):
            return
        self.database.broken = False
        self.offset = self.latest
        self.obey([])
        for _ in range(60):
            self.pass_time(31.0)
            while self.database.commit():
                self.settle()
            assert not [transfer for transfer in self.hop.running if transfer.stopped and transfer.total >= MAX_PAUSE]
            for transfer in list(self.hop.running):
                if not transfer.stopped:
                    self.finish(transfer, OK)
            while self.database.commit():
                self.settle()
            if not self.database.count() and not self.hop.running:
                break
        assert self.database.count() == 0, "something is still queued"
        wanted = {(number, each.address) for number, made in self.accepted.items() for each in made.recipients}
        missed = {key for key in wanted if not self.outcomes[key]}
        assert {number for number, _ in missed} <= self.cancelled, f"lost: {sorted(queue_id(number) for number, _ in missed)}"
        for _ in range(10):
            self.pass_time(31.0)
            self.database.commit()
            self.settle()
        self.nothing_stays()
        self.database.close()

    def nothing_stays(self) -> None:
        """In an empty queue nobody holds a slot, demands, waits, or is looked for."""
        scheduler = self.queue.scheduler
        window, ready = scheduler._window, scheduler._ready
        assert scheduler.waiting() == (0, 0, 0)
        assert not any(scheduler._preemption._demands.values())
        assert scheduler._preemption.running() == []
        assert not [each.name for each in ready.destinations() if each.running or any(each.loaded)]
        assert not window._inside._users
        assert not window._reading._windows


def _domain(made: Envelope) -> str:
    return made.recipients[0].address.rpartition("@")[2]


House.TestCase.settings = settings(max_examples=40, stateful_step_count=40, deadline=None)
TestHouse: Any = House.TestCase
