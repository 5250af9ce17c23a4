"""Large normal mail flows slowly into a next hop when one urgent message is submitted. The next hop's clock is the judge."""

from pathlib import Path

from tests.rig import sender
from tests.rig.daemon import Daemon
from tests.rig.next_hop import Delivery, NextHop

APP = "app@example.com"
BULK, BULK_SIZE, URGENT_SIZE = 8, 2_000_000, 1_000_000  # messages, octets, octets
SLOTS = 4  # connections that the bulk may use
RATE = 400_000.0  # octets a second that the next hop reads each connection at


def submit(daemon: Daemon, password: str, subject: str, size: int, fields: dict[str, str] | None = None) -> None:
    to = f"{subject}@example.net"
    with sender.session(daemon.port, "app", password) as client:
        client.sendmail(APP, [to], sender.compose(subject, sender=APP, to=to, size=size, fields=fields))


def flowing(hop: NextHop, octets: int) -> dict[int, float]:
    """The connections on which more than `octets` came, with the time of the first read."""
    counts: dict[int, int] = {}
    first: dict[int, float] = {}
    for each in list(hop.arrivals):
        counts[each.connection] = counts.get(each.connection, 0) + each.octets
        first.setdefault(each.connection, each.at)
    return {connection: first[connection] for connection, count in counts.items() if count > octets}


def test_urgent_message_stops_running_transfers_and_they_go_on(tmp_path: Path) -> None:
    """A27: running bulk stops, the urgent message passes without waiting for a slot, the bulk goes on by itself, all arrive once."""
    settings = {"delivery": {"per_destination": SLOTS}}
    with NextHop(rate=RATE) as hop, Daemon(tmp_path, routes=[{"via": hop.via}], settings=settings) as daemon:
        password = daemon.add_user("app")
        daemon.start()
        for number in range(BULK):
            submit(daemon, password, f"bulk-{number}", BULK_SIZE)
        hop.await_deliveries(lambda taken: len(flowing(hop, 100_000)) >= 2)
        submit(daemon, password, "urgent", URGENT_SIZE, {"X-Priority": "1"})
        taken = hop.await_deliveries(lambda taken: len(taken) == BULK + 1, 120.0)
        daemon.await_empty_queue()

    def subject(each: Delivery) -> str:
        return sender.field(each.content, "Subject")

    urgent = next(each for each in taken if subject(each) == "urgent")
    bulk = [each for each in taken if subject(each) != "urgent"]
    running = [each for each in bulk if each.begun < urgent.begun]
    overtaken = [each for each in running if each.ended > urgent.ended]
    assert len(overtaken) >= 2, "urgent mail had nothing to stop"
    # It started while they ran: no slot had to become free.
    assert urgent.begun < min(each.ended for each in overtaken)
    # Once what was already on the wire is read, nothing comes on their connections until the urgent message is through.
    settled = (urgent.begun + urgent.ended) / 2
    for each in overtaken:
        assert hop.octets(each.connection, each.begun, urgent.begun) > 0
        assert hop.octets(each.connection, settled, urgent.ended) == 0, f"{subject(each)} went on beside the urgent message"
        assert hop.octets(each.connection, urgent.ended, each.ended) > 0
    # No other bulk message began while the urgent one was under way.
    assert not [subject(each) for each in bulk if urgent.begun < each.begun < urgent.ended]
    assert sorted(map(subject, taken)) == sorted(["urgent", *(f"bulk-{number}" for number in range(BULK))])
    assert all(sender.is_whole(each.content) for each in taken)
    assert "reactor class: smtpplus.reactor.Reactor" in daemon.log()  # within the process it has the right of way


def test_crash_while_bulk_is_stopped_loses_and_repeats_nothing(tmp_path: Path) -> None:
    """A27: SIGKILL while the urgent message passes and bulk is stopped: after the restart all arrive, whole and once."""
    settings = {"delivery": {"per_destination": SLOTS}}
    with NextHop(rate=RATE) as hop, Daemon(tmp_path, routes=[{"via": hop.via}], settings=settings) as daemon:
        password = daemon.add_user("app")
        daemon.start()
        for number in range(SLOTS):
            submit(daemon, password, f"bulk-{number}", BULK_SIZE)
        hop.await_deliveries(lambda taken: len(flowing(hop, 100_000)) >= 2)
        submit(daemon, password, "urgent", URGENT_SIZE, {"X-Priority": "1"})
        newest = hop.connection_of("urgent@example.net")
        hop.await_deliveries(lambda taken: newest in flowing(hop, 100_000))
        assert hop.deliveries == []
        daemon.kill9()
        daemon.start()
        taken = hop.await_deliveries(lambda taken: len(taken) == SLOTS + 1, 120.0)
        daemon.await_empty_queue()
        assert len(hop.deliveries) == SLOTS + 1
        names = sorted(sender.field(each.content, "Subject") for each in taken)
        assert names == sorted(["urgent", *(f"bulk-{number}" for number in range(SLOTS))])
        assert all(sender.is_whole(each.content) for each in taken)
