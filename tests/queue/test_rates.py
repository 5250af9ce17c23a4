"""Limits as arithmetic, and over a running queue: mail over them waits, goes by itself, and holds up nobody else."""

from __future__ import annotations

from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Connection
from sqlalchemy.exc import IntegrityError
from twisted.internet.defer import inlineCallbacks

from smtpplus.accounts import lists
from smtpplus.accounts.allowances import Allowances, load_allowances
from smtpplus.accounts.settings import SERVER
from smtpplus.config import Configuration, Delivery, Limits
from smtpplus.queue.rates import DAY, HOUR, MINUTE, SLOTS, Limit, Load, Meter, OverRate, Rates, Terms, limits
from smtpplus.queue.rates import Limits as Some
from smtpplus.queue.rules import Rule, Rules
from smtpplus.queue.standing import WHOLE
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


@given(st.lists(st.tuples(st.floats(0, 40), st.integers(1, 4), st.booleans()), max_size=30))
def test_what_is_given_back_was_never_counted(arrivals: list[tuple[float, int, bool]]) -> None:
    """C7: what is given back, at once, leaves the meter as it was."""
    meter, other, now = Meter(Limit(9, MINUTE)), Meter(Limit(9, MINUTE)), 0.0
    for pause, size, kept in arrivals:
        now += pause
        meter.count(size, now)
        if kept:
            other.count(size, now)
        else:
            meter.give_back(size)
        assert meter.steps(now) == other.steps(now)
        assert (meter.total, meter.free_at(1, now)) == (other.total, other.free_at(1, now))
    meter.give_back(1000)
    assert (meter.total, meter.steps(now)) == (0, [])


def test_a_clock_that_is_set_back() -> None:
    """C7: what was counted in a future that is no more holds up nobody."""
    meter = Meter(Limit(1, DAY))
    meter.count(1, 1e9)
    assert meter.free_at(1, 1e9 - 2 * DAY) == 1e9 - 2 * DAY


def a_minute(amount: int) -> Some:
    """So many recipients a minute."""
    return (Limit(amount, MINUTE),)


def test_who_has_which_limits() -> None:
    """C7, A32: the user's own, else the list's, else everybody's; the list's sum, else every list's; nobody's mail has none."""
    rates = Rates()
    assert not rates
    rates.settle(Terms(a_minute(9), {"own": a_minute(1), "free": ()}, {"news": a_minute(5)}, a_minute(50), {"news": a_minute(70)}))
    assert rates
    owners = (("own", "news"), ("free", "news"), ("x", "news"), ("x", "default"), ("", "news"))
    assert [rates.of_user(*owner) for owner in owners] == [a_minute(1), (), a_minute(5), a_minute(9), ()]
    assert [rates.of_list(*owner) for owner in owners] == [a_minute(70)] * 3 + [a_minute(50), ()]
    rates.settle(Terms(users={"free": ()}, sums={"news": ()}))
    assert not rates


def test_of_equal_limits_the_least_counts() -> None:
    """C7: two limits of the same period and unit are the smaller one; 0 is none."""
    amounts: list[Any] = [(0, MINUTE, "recipients"), (9, MINUTE, "recipients"), (5, MINUTE, "recipients"), (7, DAY, "octets")]
    assert limits(amounts) == (Limit(5, MINUTE), Limit(7, DAY, "octets"))
    assert [str(limit) for limit in limits(amounts)] == ["5 recipients a minute", "7 octets a day"]


def test_what_is_used_up_first() -> None:
    """C7: it is told whose limit holds mail, which one, and until when; octets are counted beside recipients."""
    rates = Rates(Terms((Limit(10, MINUTE), Limit(300, HOUR, "octets")), sums={"news": a_minute(3)}))
    load = Load("app", "default", "x.net", 1, 100)
    for _ in range(3):
        assert rates.over(load, 1800.0) is None
        rates.count(load, 1800.0)
    assert rates.over(load, 1800.0) == OverRate("user", "app", 1800.0 + HOUR + HOUR / SLOTS, "300 octets an hour")
    for user in ("one", "two", "three"):
        rates.count(Load(user, "news", "x.net", 1, 1), 1800.0)
    assert rates.over(Load("four", "news", "y.net", 1, 1), 1800.0) == OverRate("list", "news", 1863.0, "3 recipients a minute")
    assert rates.over(Load("four", "default", "y.net", 1, 1), 1800.0) is None


def test_quotas_outlive_a_restart() -> None:
    """C7: what was counted under limits of an hour or more is counted after a restart."""
    terms = Terms((Limit(10, MINUTE), Limit(1, DAY)), every_list=(Limit(5, HOUR),))
    before, after = Rates(terms, [Limit(1, HOUR, "octets")]), Rates(terms)
    load = Load("app", "default", "x.net", 1, 100)
    before.count(load, 1000.0)
    saved = before.save(1000.5)
    assert set(saved) == {"user app recipients 86400", "list default recipients 3600", "destination x.net octets 3600"}
    after.restore(saved, 1000.5)
    assert set(after.save(1001.0)) == set(saved), "also what nobody has asked for since outlives the next restart"
    assert after.save(1001.0 + HOUR * 2).keys() == {"user app recipients 86400"}
    over = after.over(load, 1001.0)
    assert over is not None
    assert over.until > 80_000.0


class RatedCase(QueueCase):
    """A next hop that takes everything while time passes."""

    @inlineCallbacks
    def deliver(self, seconds: float) -> Any:
        """Let time pass, with a next hop that takes everything."""
        for _ in range(int(seconds)):
            yield self.turn(1)
            for transfer in self.agent.transfers:
                if not transfer.ended:
                    transfer.end(OK)
        yield self.turn(1)


class RateTests(RatedCase):
    """Six recipients a minute for each user, four for each destination."""

    configuration = Configuration(
        hostname="relay.example.com", limits=Limits(rate=6), delivery=Delivery(rate=((4, 60.0, "recipients"),), initial_per_destination=20)
    )

    @inlineCallbacks
    def test_urgent_mail_starts_with_its_250_within_the_limits(self) -> Any:
        """A27, C7: urgent mail that begins with its commit is counted like other mail; what is over the limit waits its turn."""
        for number in range(1, 9):
            yield self.accept(envelope(number, 1, "app", f"b@{number}.net", at=self.wall))
        self.assertEqual([attempts for (attempts,) in self.rows("SELECT attempts FROM recipients ORDER BY message_id")], [1] * 6 + [0] * 2)
        yield self.deliver(5)
        self.assertEqual(self.agent.begun(), [1, 2, 3, 4, 5, 6])
        yield self.deliver(60)
        self.assertEqual(self.agent.begun()[6:], [7, 8])

    @inlineCallbacks
    def test_what_does_not_begin_spends_nothing(self) -> Any:
        """C7: a first attempt that was counted with the acceptance, which failed, or which a rule came before, leaves its room to others,
        also to one that waits for it already."""
        yield self.accept(envelope(1, 1, "app", "b@1.net", at=self.wall))
        refused = self.queue.spool.accept(envelope(1, 1, "app", *(f"b{number}@2.net" for number in range(5)), at=self.wall), CONTENT)
        yield self.assertFailure(refused, IntegrityError)
        self.flushLoggedErrors()
        yield self.accept(envelope(2, 1, "app", *(f"b{number}@3.net" for number in range(4)), at=self.wall))
        self.queue.scheduler.obey(Rules([Rule(1, "destination", "3.net")]))
        yield self.accept(envelope(3, 3, "app", "b1@4.net", "b2@4.net", "b3@4.net", "b4@4.net", at=self.wall))
        yield self.deliver(1)
        self.assertEqual(sorted(self.agent.begun()), [1, 3])

    @inlineCallbacks
    def test_a_clock_that_is_set_back_shuts_nobody(self) -> Any:
        """C7: who waits for a limit when the clock is set back does not wait until it has caught up: what went then is forgotten."""
        for number in range(1, 9):
            last = self.queue.spool.accept(envelope(number, 3, "app", f"b@{number}.net", at=self.wall), CONTENT)
        yield last
        yield self.deliver(5)
        self.assertEqual(self.agent.begun(), [1, 2, 3, 4, 5, 6])
        self.wall -= 3600
        yield self.deliver(1)
        self.assertEqual(self.agent.begun()[6:], [7, 8])

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
        self.queue.scheduler.limit(Terms(users={"app": ()}))
        yield self.turn(1)
        self.assertEqual(self.agent.begun(), list(range(1, 10)))

    @inlineCallbacks
    def test_quotas_are_counted_over_a_restart(self) -> Any:
        """C7: a user whose quota of the day is spent does not get another by a restart."""
        self.queue.scheduler.limit(Terms(users={"app": (Limit(2, DAY),)}))
        for number in range(1, 4):
            yield self.accept(envelope(number, 3, "app", f"b@{number}.net", at=self.wall))
        yield self.begun(2)
        yield self.turn(11)
        yield self.wind_up()
        self.open()
        yield self.queue.start()
        self.queue.scheduler.limit(Terms(users={"app": (Limit(2, DAY),)}))
        yield self.turn(5)
        self.assertEqual(sorted(self.agent.begun()), [1, 2])

    @inlineCallbacks
    def test_a_crash_forgets_a_second_of_quotas(self) -> Any:
        """C7: what went more than a second before the daemon was killed is counted after it, whether all was written just before or not;
        while nothing goes nothing is written."""
        quota = Terms(users={"app": (Limit(3, DAY),)})
        self.queue.scheduler.limit(quota)
        for number in (1, 2):
            yield self.accept(envelope(number, 3, "app", f"b@{number}.net", at=self.wall))
            yield self.begun(number)
            yield self.turn(1.25)
        counts = "SELECT name, value FROM status WHERE name LIKE 'rates%' ORDER BY name"
        first = self.rows(counts)
        saved = [msgspec.json.decode(text, type=dict[str, list[tuple[float, int]]]) for _, text in first]
        self.assertEqual([sum(count for steps in each.values() for _, count in steps) for each in saved], [1, 2])
        yield self.turn(WHOLE + 2)
        self.assertEqual(self.rows(counts), first)
        yield self.database.stop()
        self.open()
        yield self.queue.start()
        self.queue.scheduler.limit(quota)
        yield self.accept(envelope(3, 3, "app", "b@3.net", at=self.wall))
        yield self.accept(envelope(4, 3, "app", "b@4.net", at=self.wall))
        yield self.turn(3)
        self.assertNotIn(4, self.agent.begun())
        self.assertIn(3, self.agent.begun())

    @inlineCallbacks
    def test_a_list_has_a_sum(self) -> Any:
        """C7: all users of a list together send no more than its sum: of ten messages of two users five go at once and the others later,
        each user's in their order; mail of another list passes by, and it is told what they wait for."""
        self.queue.scheduler.limit(Terms(sums={"news": a_minute(5)}))
        for number in range(1, 11):
            accepted = envelope(number, 3, f"u{number % 2}", f"b@{number}.net", at=self.wall)
            last = self.queue.spool.accept(msgspec.structs.replace(accepted, list="news"), CONTENT)
        yield last
        yield self.deliver(5)
        self.assertEqual(len(self.agent.transfers), 5)
        self.assertEqual([(wait.kind, wait.name) for wait in self.queue.scheduler.standing().over_rate], [("list", "news")])
        yield self.accept(envelope(50, 5, "other", "b@50.net", at=self.wall))
        yield self.accept(msgspec.structs.replace(envelope(51, 5, "late", "b@51.net", at=self.wall), list="news"))
        yield self.deliver(5)
        self.assertEqual(self.agent.begun()[5:], [50])
        yield self.deliver(130)
        begun = self.agent.begun()
        self.assertEqual(sorted(begun), [*range(1, 11), 50, 51])
        for user in (0, 1):
            own = [number for number in begun if number <= 10 and number % 2 == user]
            self.assertEqual(own, sorted(own))


class AllowanceTests(RatedCase):
    """Limits as users, lists and the server set them in the database and in the configuration."""

    server = msgspec.structs.replace(SERVER, quota=2)

    def allowances(self, connection: Connection) -> Allowances:
        return load_allowances(connection, self.server)

    @inlineCallbacks
    def test_changes_are_seen(self) -> Any:
        """C7, A32: what a list sets is in force within a second, and so is what the server sets, once the configuration was read anew. Two
        of the day go, then three by the word of the list, then all by that of the server."""
        for number in range(1, 8):
            last = self.queue.spool.accept(envelope(number, 3, "app", f"b@{number}.net", at=self.wall), CONTENT)
        yield last
        yield self.deliver(3)
        self.assertEqual(self.agent.begun(), [1, 2])
        self.operate(lambda connection: lists.edit_list(connection, "default", now=2.0, settings={"per_list": "3/h", "quota": 0}))
        yield self.deliver(3)
        self.assertEqual(self.agent.begun(), [1, 2, 3, 4, 5])
        self.operate(lambda connection: lists.edit_list(connection, "default", now=3.0, settings={"per_list": None, "quota": None}))
        yield self.deliver(3)
        self.assertEqual(len(self.agent.transfers), 5)
        self.server = SERVER
        self.queue.watch.again()
        yield self.deliver(3)
        self.assertEqual(self.agent.begun(), list(range(1, 8)))


class LongLineTests(RatedCase):
    """Twenty recipients a minute for each user."""

    configuration = Configuration(
        hostname="relay.example.com", limits=Limits(rate=20), delivery=Delivery(per_destination=50, initial_per_destination=50)
    )

    @inlineCallbacks
    def test_a_long_line_goes_in_its_order(self) -> Any:
        """A25, C7: 400 messages of one user to one destination go at 20 a minute in their order, each once, although the user is shut and
        opened again at each step; what is read for it is little beside what goes."""
        read: list[int] = []
        fetch = self.queue.spool.fetch

        def counted(numbers: list[int]) -> Any:
            read.extend(numbers)
            return fetch(numbers)

        self.queue.spool.fetch = counted  # type: ignore[method-assign]  # it is counted, and done as ever
        self.queue.scheduler.limit(Terms(a_minute(20)))
        for number in range(1, 401):
            last = self.queue.spool.accept(envelope(number, 3, "app", "b@x.smart.net", at=self.wall), CONTENT)
        yield last
        yield self.deliver(1)
        del read[:]
        yield self.deliver(300)
        begun = self.agent.begun()
        self.assertEqual(begun, list(range(1, len(begun) + 1)))
        self.assertGreaterEqual(len(begun), 80)
        self.assertLess(len(read), 3 * len(begun))

    @inlineCallbacks
    def test_what_is_lined_up_again_over_a_rate(self) -> Any:
        """C7, A25: entries whose attempts could not be recorded were not sent: they spend nothing, and go in front of those that came later
        as soon as they can be recorded."""
        self.sql("CREATE TRIGGER fault BEFORE UPDATE ON recipients BEGIN SELECT RAISE(ABORT, 'a fault'); END")
        for number in range(1, 21):
            last = self.queue.spool.accept(envelope(number, 3, "app", "b@x.net", at=self.wall), CONTENT)
        yield last
        yield self.turn(1)
        self.flushLoggedErrors()
        self.sql("DROP TRIGGER fault")
        yield self.accept(envelope(21, 3, "app", "b@x.net", at=self.wall))
        yield self.deliver(10)
        self.assertEqual(self.agent.begun(), list(range(1, 21)))
        yield self.deliver(30)
        self.assertEqual(self.agent.begun(), list(range(1, 21)))
        yield self.deliver(70)
        self.assertEqual(self.agent.begun()[20:], [21])

    def sql(self, text: str) -> None:
        """What another process does to the database."""
        self.operate(lambda connection: connection.exec_driver_sql(text) and None)
