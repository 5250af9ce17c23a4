"""Limits as arithmetic, and over a running queue: mail over them waits, goes by itself, and holds up nobody else."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import inlineCallbacks

from smtpplus.config import Configuration, Delivery, Limits
from smtpplus.queue.rates import DAY, HOUR, MINUTE, SLOTS, Limit, Load, Meter, Rates, limited
from tests.queue.fixtures import LATER, OK, envelope
from tests.queue.house import CONTENT, QueueCase


@given(st.lists(st.tuples(st.floats(0, 40), st.integers(1, 4)), min_size=1, max_size=60), st.integers(4, 12))
def test_no_period_has_more(arrivals: list[tuple[float, int]], amount: int) -> None:
    """C7: whatever comes, each goes at the moment named and not before, and no period holds more than the amount."""
    meter, now, gone = Meter(Limit(amount, MINUTE)), 0.0, list[tuple[float, int]]()
    for pause, size in arrivals:
        now += pause
        free = meter.free_at(size, now)
        assert free == now or meter.free_at(size, free - 0.01) > free - 0.01
        assert meter.free_at(size, free) == free
        now = free
        meter.count(size, now)
        gone.append((now, size))
        assert sum(each for at, each in gone if at > now - MINUTE) <= amount


def test_what_is_larger_than_the_limit_goes_alone() -> None:
    """C7: never refused: a message above the whole limit goes when nothing else went for a period."""
    meter = Meter(Limit(5, MINUTE))
    assert meter.free_at(100, 10.0) == 10.0
    meter.count(100, 10.0)
    step = MINUTE / SLOTS
    assert meter.free_at(1, 11.0) == 10.0 - 10.0 % step + MINUTE + step


def test_a_clock_that_is_set_back() -> None:
    """C7: what was counted in a future that is no more holds up nobody."""
    meter = Meter(Limit(1, DAY))
    meter.count(1, 1e9)
    assert meter.free_at(1, 1e9 - 2 * DAY) == 1e9 - 2 * DAY


def test_who_has_which_limits() -> None:
    """C7, A32: the user's own, else the list's, else everybody's; nobody's mail (our own) has none."""
    rates = Rates(limited(9, 0))
    rates.settle({"own": limited(1, 2), "free": ()}, {"news": limited(5, 0)})
    found = [
        rates.of_user(user, list_) for user, list_ in (("own", "news"), ("free", "news"), ("x", "news"), ("x", "default"), ("", "news"))
    ]
    assert found == [(Limit(1, MINUTE), Limit(2, DAY)), (), (Limit(5, MINUTE),), (Limit(9, MINUTE),), ()]
    assert not Rates()


def test_quotas_outlive_a_restart() -> None:
    """C7: what was counted under limits of an hour or more is counted after a restart."""
    before, after = Rates(limited(10, 1), [Limit(1, HOUR, "octets")]), Rates(limited(10, 1))
    load = Load("app", "default", "x.net", 1, 100)
    before.count(load, 1000.0)
    saved = before.save()
    assert set(saved) == {"user app recipients 86400", "destination x.net octets 3600"}
    after.restore(saved)
    assert after.user_free_at(load, 1001.0) > 80_000.0


class RateTests(QueueCase):
    """Six recipients a minute for each user, four for each destination."""

    configuration = Configuration(
        hostname="relay.example.com", limits=Limits(rate=6), delivery=Delivery(rate=((4, 60.0, "recipients"),), initial_per_destination=20)
    )

    @inlineCallbacks
    def deliver(self, seconds: float) -> Any:
        """Let time pass, with a next hop that takes everything."""
        for _ in range(int(seconds)):
            yield self.turn(1)
            for transfer in self.agent.transfers:
                if not transfer.ended:
                    transfer.end(OK)
        yield self.turn(1)

    @inlineCallbacks
    def test_over_a_rate_mail_waits_and_goes(self) -> Any:
        """C7: of ten messages of one user six go at once and the others in the next minute, in their order, each once; another user's mail
        does not wait for them."""
        for number in range(1, 11):
            last = self.queue.spool.accept(envelope(number, 3, "app", f"b@{number}.net", at=self.wall), CONTENT)
        yield last
        yield self.deliver(10)
        self.assertEqual(self.agent.begun(), [1, 2, 3, 4, 5, 6])
        yield self.accept(envelope(50, 5, "other", "b@50.net", at=self.wall))
        yield self.accept(envelope(51, 1, "app", "b@51.net", at=self.wall))
        yield self.deliver(5)
        self.assertEqual(self.agent.begun()[6:], [50])
        yield self.deliver(60)
        self.assertEqual(self.agent.begun()[7:], [51, 7, 8, 9, 10])
        yield self.until(lambda: self.rows("SELECT count(*) FROM messages") == [(0,)])

    @inlineCallbacks
    def test_a_destination_has_its_rate(self) -> Any:
        """C7: a destination over its rate waits; mail to others passes by, and urgent mail for it stops nobody."""
        for number in range(1, 7):
            last = self.queue.spool.accept(envelope(number, 3, f"u{number}", "b@slow.net", at=self.wall), CONTENT)
        yield last
        yield self.turn(1)
        self.assertEqual(self.agent.begun(), [1, 2, 3, 4])
        yield self.accept(envelope(50, 3, "other", "b@quick.net", at=self.wall))
        yield self.accept(envelope(51, 1, "urgent", "b@slow.net", at=self.wall))
        yield self.turn(1)
        self.assertEqual(self.agent.begun()[4:], [50])
        self.assertEqual([transfer.stopped for transfer in self.agent.transfers], [False] * 5)
        yield self.deliver(64)
        self.assertEqual(self.agent.begun()[5:], [51, 5, 6])

    @inlineCallbacks
    def test_a_retry_is_the_same_mail(self) -> Any:
        """C7: what was counted at its first attempt is not counted at its next."""
        for number in range(1, 5):
            last = self.queue.spool.accept(envelope(number, 3, "app", "b@x.net", at=self.wall), CONTENT)
        yield last
        yield self.begun(4)
        for transfer in self.agent.transfers:
            transfer.end(LATER)
        yield self.turn(61)
        yield self.begun(8)
        self.assertEqual(self.agent.begun()[4:], [1, 2, 3, 4])

    @inlineCallbacks
    def test_limits_change(self) -> Any:
        """C7: limits that are lifted let everything go that waited for them."""
        for number in range(1, 10):
            last = self.queue.spool.accept(envelope(number, 3, "app", f"b@{number}.net", at=self.wall), CONTENT)
        yield last
        yield self.begun(6)
        yield self.turn(1)
        self.assertEqual(len(self.agent.transfers), 6)
        self.queue.scheduler.limit({"app": ()}, {})
        yield self.turn(1)
        self.assertEqual(self.agent.begun(), list(range(1, 10)))

    @inlineCallbacks
    def test_quotas_are_counted_over_a_restart(self) -> Any:
        """C7: a user whose quota of the day is spent does not get another by a restart."""
        self.queue.scheduler.limit({"app": limited(0, 2)}, {})
        for number in range(1, 4):
            yield self.accept(envelope(number, 3, "app", f"b@{number}.net", at=self.wall))
        yield self.begun(2)
        yield self.turn(11)
        yield self.wind_up()
        self.open()
        yield self.queue.start()
        self.queue.scheduler.limit({"app": limited(0, 2)}, {})
        yield self.turn(5)
        self.assertEqual(sorted(self.agent.begun()), [1, 2])
