"""What goes next: messages from acceptance to the slot in which they are attempted.

Ready entries wait in `ready` (by level, fairly between users, first in first out for one); what is in memory of all that waits is
`window`'s business, what becomes of an entry with a slot is that of `attempts`. An attempt is recorded, with the next one already in
the future, before it begins, so that a message that brings the process down does not do so again at once.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.task import LoopingCall

from smtpplus.events import Events
from smtpplus.mail.disposition import DeliveryAgent
from smtpplus.mail.envelope import Content, Envelope
from smtpplus.queue.aside import facts_of
from smtpplus.queue.attempts import Attempts
from smtpplus.queue.entry import Entry
from smtpplus.queue.head_start import HeadStart
from smtpplus.queue.preemption import LOWEST, Preemption
from smtpplus.queue.rates import Rates, Terms
from smtpplus.queue.reach import Reach
from smtpplus.queue.ready import Ready
from smtpplus.queue.rules import Rules
from smtpplus.queue.set_back import SetBack
from smtpplus.queue.settlement import Settlement
from smtpplus.queue.spool import Spool
from smtpplus.queue.standing import SHOWN, Slots, Standing
from smtpplus.queue.throttle import Throttle
from smtpplus.queue.window import Window
from smtpplus.storage.database import Database

SPARE = 10  # one slot of so many is for destinations that have none
REST = 5.0  # seconds for which nothing starts when the database takes no record of it
LOOK = 0.25  # seconds: the clock on the wall is looked at this often, as it may be set

Promptly = Callable[..., object]  # makes a call when whoever waits for a commit was told, before other mail has its turn


class Scheduler:
    """Decides which entry starts when. All times but the clock's are seconds since the epoch."""

    def __init__(
        self,
        *,
        database: Database,
        spool: Spool,
        agent: DeliveryAgent,
        destination: Callable[[str], str],
        ready: Ready,
        preemption: Preemption,
        settlement: Settlement,
        rates: Rates,
        schedule: Sequence[float],
        connections: int,
        reserved: int,
        promptly: Promptly,
        clock: IReactorTime,
        now: Callable[[], float],
        events: Events,
    ) -> None:
        self._spool = spool
        self._window = Window(spool=spool, ready=ready, destination=destination, line_up=self.line_up, clock=clock, now=now)
        self._throttle = Throttle(rates=rates, window=self._window, preemption=preemption, hold=self._hold, now=now)
        self._agent = agent
        self._ready = ready
        self._preemption = preemption
        self._settlement = settlement
        self._connections = connections
        self._reserved = reserved
        self._promptly = promptly
        self._clock = clock
        self._now = now
        self._pumping: IDelayedCall | None = None
        self._stopping = False
        self._looking = LoopingCall(self._look)
        self._looking.clock = clock
        self._reach = self._make_reach(schedule)
        self._attempts = self._make_attempts(database, schedule, events)
        self._head_start = self._make_head_start(schedule)
        self._set_back = SetBack(database=database, pick_up=self._window.pick_up, schedule=schedule, now=now)

    def _make_reach(self, schedule: Sequence[float]) -> Reach:
        return Reach(
            ready=self._ready,
            preemption=self._preemption,
            schedule=schedule,
            stopped=lambda: self._window.aside.everything,
            wake=self._wake,
            clock=self._clock,
            now=self._now,
        )

    def _make_attempts(self, database: Database, schedule: Sequence[float], events: Events) -> Attempts:
        return Attempts(
            database=database,
            agent=self._agent,
            window=self._window,
            ready=self._ready,
            reach=self._reach,
            preemption=self._preemption,
            settlement=self._settlement,
            schedule=schedule,
            crowd=self._connections - self._reserved - self._connections // SPARE,
            unspent=self._throttle.give_back,
            wake=self._wake,
            rest=self._rest,
            clock=self._clock,
            now=self._now,
            events=events,
        )

    def _make_head_start(self, schedule: Sequence[float]) -> HeadStart:
        return HeadStart(
            window=self._window,
            ready=self._ready,
            preemption=self._preemption,
            throttle=self._throttle,
            free=lambda entry: not self._stopping and self._fits(entry),
            schedule=schedule,
            now=self._now,
        )

    # What comes in.

    def expect(self, envelope: Envelope, content: Content) -> float:
        """A message is about to be committed. If it begins with that, it has its slot now: returns when it is tried again; else 0."""
        entry = self._head_start.expect(envelope, content)
        if entry is None:
            return 0.0
        self._attempts.take()
        self._agent.prepare(envelope, entry.destination)
        return entry.due

    def accepted(self, envelope: Envelope, content: Content) -> None:
        """A message is committed: line up its recipients. They start after whoever waits for the commit was told."""
        entry = self._head_start.take(envelope)
        if entry is None:
            self._window.accept(envelope, content)
        else:
            self._preemption.renew(entry)
            self._promptly(self._set_off, entry)

    def _set_off(self, entry: Entry) -> None:
        """The commit of `entry`, which had a slot before, is over: what has come in the meantime is asked once more."""
        if entry.cancelled or self._window.aside.rules:
            self._attempts.put_back(entry)
        else:
            self._attempts.launch(None, [entry])

    def lost(self, envelope: Envelope) -> None:
        """A message that was expected will not come."""
        entry = self._head_start.take(envelope)
        if entry is not None:
            entry.attempts = 0
            self._throttle.give_back([entry])
            self._attempts.release(entry)
            self._window.leave(entry)

    def start(self) -> Deferred[int]:
        """Line up what the database holds, while mail already flows. Fires with the number of recipients found."""
        self._looking.start(LOOK, now=False)
        self._set_back.bring_forward()
        return self._window.gather(self._settlement.new_id())  # what is accepted from now on lines itself up

    def _look(self) -> None:
        """Every LOOK seconds: what has come due, and who has waited long enough for a better place."""
        self._window.look()
        set_back = self._set_back.look()
        self._throttle.look(again=set_back)
        if set_back:
            self._set_back.bring_forward()
        self._ready.age()
        self._wake()

    def pick_up(self, numbers: Iterable[int]) -> None:
        """Line up messages that another process put into the database, or made due."""
        self._window.pick_up(numbers)

    def line_up(self, entry: Entry) -> None:
        """`entry` came into the window: it waits for its turn."""
        if self._reach.takes(self._ready.push(entry)):
            self._preemption.demand(entry)
        self._wake()

    # What operators want.

    def obey(self, rules: Rules) -> None:
        """From now on these rules are in force, and no others."""
        aside = self._window.aside
        everything = aside.everything
        self._ready.rules = rules
        for entry in self._window.obey(rules):
            self._preemption.withdraw(entry)
        self._hold()
        if everything is not aside.everything:
            self._reach.demand_all()
        self._settlement.rules = rules
        stops = any(rule.running == "stop" for rule in rules.by_id.values())
        self._preemption.obey((lambda entry: _stopper(rules, entry)) if stops else None)
        self._wake()

    def limit(self, terms: Terms) -> None:
        """From now on these rates and quotas are set."""
        self._throttle.settle(terms)
        self._wake()

    def _hold(self) -> None:
        self._reach.hold(self._window.aside.closed | self._throttle.slowed)

    def changed(self, numbers: Collection[int], cancelled: Collection[tuple[int, int]]) -> None:
        """Another process changed these messages, and took the (message, recipient) in `cancelled` out of the queue. An attempt under way
        at recipients that are all cancelled is given up, unless its final dot is sent."""
        waiting, running = self._window.forget(numbers)
        for entry in waiting:
            self._preemption.withdraw(entry)
        for entry in running:
            entry.cancelled = all((entry.message.envelope.id, number) in cancelled for number in entry.numbers)
        for each in self._preemption.running():
            if each.entry.cancelled:
                each.transfer.abandon()
        self._spool.gone(number for number, _ in cancelled)
        self._wake()

    def retry(self, addresses: Collection[str]) -> None:
        """Try the destinations of these recipients now, also those that are left alone because they did not answer."""
        self._reach.retry({self._window.destination_of(address) for address in addresses})

    # What goes out.

    def _wake(self) -> None:
        if self._pumping is None and not self._stopping:
            self._pumping = self._clock.callLater(0, self._pump)

    def _rest(self) -> None:
        """Start nothing for a while."""
        if self._pumping is not None:
            self._pumping.cancel()
        if not self._stopping:
            self._pumping = self._clock.callLater(REST, self._pump)

    def _pump(self) -> None:
        """Start what may start."""
        self._pumping = None
        if self._window.aside.everything:
            return
        batch: list[Entry] = []
        while (entry := self._ready.best()) is not None and self._fits(entry):
            if self._throttle.rates and self._throttle.delays(entry):
                continue
            self._ready.take()
            self._attempts.take()
            batch.append(entry)
        if batch:
            self._attempts.record(batch)
        if self._preemption.ceiling < LOWEST:
            waits = entry is not None and self._preemption.preempts(entry.level) and entry.rank <= self._preemption.ceiling
            self._preemption.relieve(self._ready.starves, taken=self._attempts.active if waits else 0)
        for entry in batch:
            self._window.refill(entry.destination, entry.level)

    def _fits(self, entry: Entry) -> bool:
        """Whether the house has a slot for it: the last few are reserved for urgent mail, and nothing starts below a demand."""
        if entry.rank > self._preemption.ceiling:
            return False
        return self._attempts.active < self._connections - (0 if self._preemption.preempts(entry.level) else self._reserved)

    # The end.

    def stop(self, grace: float) -> Deferred[None]:
        """Begin nothing more; fires when what runs is over and recorded. After `grace` seconds it is abandoned and deferred."""
        self._stopping = True
        self._window.close()
        if self._looking.running:
            self._looking.stop()
        if self._pumping is not None:
            self._pumping.cancel()
            self._pumping = None
        self._preemption.end()
        return self._attempts.end(grace).addCallback(lambda _: self._settlement.finish())

    def waiting(self) -> tuple[int, int, int]:
        """How many entries are ready or held, delayed, and under way."""
        return self._window.waiting(), self._window.calendar.count, self._attempts.active

    def standing(self) -> Standing:
        """What only memory knows."""
        ready, delayed, running = self.waiting()
        count, some = self._reach.backing_off()
        return Standing(
            ready,
            delayed,
            running,
            some,
            count,
            tuple(self._preemption.stopped()[:SHOWN]),
            self._preemption.ceiling if self._preemption.ceiling < LOWEST else None,
            self._throttle.waits[:SHOWN],
            Slots(self._connections, self._reserved, self._connections // SPARE, self._preemption.levels),
            self._reach.crowded(),
            self._preemption.transfers(),
        )


def _stopper(rules: Rules, entry: Entry) -> str:
    """The name of the rule that stops a transfer of `entry`, "" if none does."""
    rule = rules.stops(facts_of(entry))
    return rule.name if rule is not None else ""
