"""`smtpplus queue` and `status` on a real database, without a daemon: what is listed, held, changed and refused."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any, Callable

import msgspec
import pytest
from click.testing import CliRunner
from sqlalchemy import Connection, Engine, func, insert, select

from smtpplus.mail.envelope import CHUNK, Envelope, Recipient, parse_queue_id, queue_id
from smtpplus.observation import owed, story
from smtpplus.operation.cli import main
from smtpplus.queue import actions, rows
from smtpplus.queue.depth import _query
from smtpplus.queue.entry import EnvelopeIds
from smtpplus.queue.rates import OverRate
from smtpplus.queue.rules import KINDS, Rule, Rules
from smtpplus.queue.standing import BackingOff, Crowded, Row, Slots, Standing, StoppedTransfer
from smtpplus.queue.under_way import RunningTransfer
from smtpplus.storage import schema, writes
from smtpplus.storage.engine import create_engine, migrate

Queue = Callable[..., Any]
NEW_ID = EnvelopeIds(1)


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    """The database that the command line will use."""
    (tmp_path / "smtpplus.toml").write_text(
        'state_directory = "state"\n[[route]]\ndestination = ".smart.net"\nvia = "smtp://smart:25"\n[[route]]\ndestination = "*"\n'
    )
    url = f"sqlite:///{tmp_path}/state/smtpplus.sqlite"
    migrate(url)
    return create_engine(url)


@pytest.fixture
def queue(tmp_path: Path, engine: Engine) -> Queue:
    """Call `smtpplus ARGUMENTS` and judge its status; with --json its value is returned, else its text."""

    def call(*arguments: str, status: int = 0) -> Any:
        result = CliRunner().invoke(main, ["--config", str(tmp_path / "smtpplus.toml"), *arguments])
        assert result.exit_code == status, result.output
        return json.loads(result.stdout) if "--json" in arguments and not status else result.output

    return call


def put(engine: Engine, *to: str, sender: str = "a@example.com", user: str = "app", level: int = 3, list: str = "default") -> int:
    """A message in the queue; its id."""
    number = NEW_ID()
    recipients = tuple(Recipient(address) for address in to or ("b@example.net",))
    envelope = Envelope(number, sender, recipients, user, level, 2 * CHUNK, time.time(), list=list)
    row = (number, schema.QUEUED, sender, user, level, 2 * CHUNK, envelope.received_at, 2, rows.parameters(envelope), b"x" * CHUNK)
    with engine.begin() as connection:
        writes.INSERT_MESSAGE.run(connection, [row])
        writes.INSERT_CHUNK.run(connection, [(number, 1, b"x" * CHUNK)])
        for statement, values in rows.recipients(envelope):
            statement.run(connection, [values])
    return number


def change(engine: Engine, number: int, **values: Any) -> None:
    """Let the recipients of a message be as after attempts."""
    with engine.begin() as connection:
        connection.execute(schema.recipients.update().where(schema.recipients.c.message_id == number).values(**values))


def count(engine: Engine) -> tuple[int, ...]:
    """Messages, chunks and recipients stored."""

    def work(connection: Connection) -> tuple[int, ...]:
        tables = (schema.messages, schema.chunks, schema.recipients)
        return tuple(connection.scalar(select(func.count()).select_from(table)) or 0 for table in tables)

    with engine.connect() as connection:
        return work(connection)


def test_selectors(engine: Engine, queue: Queue) -> None:
    """A31: each selector finds its messages; of one kind they are alternatives, of several kinds all must be met."""
    plain = queue_id(put(engine))
    bulk = queue_id(put(engine, "x@GMAIL.com", user="bulk", level=5, list="news"))
    smart = queue_id(put(engine, "y@a.smart.net", sender="n@Other.COM"))
    wanted = {
        (): [plain, bulk, smart],
        ("--user", "bulk"): [bulk],
        ("--list", "news"): [bulk],
        ("--level", "5", "--level", "4"): [bulk],
        ("--sender-domain", "other.com"): [smart],
        ("--destination", "gmail.com"): [bulk],
        ("--destination", "smtp://smart:25"): [smart],
        ("--destination", "a.smart.net", "--destination", "gmail.com"): [bulk, smart],
        ("--id", plain.lower()): [plain],
        ("--user", "app", "--destination", "gmail.com"): [],
    }
    found = {arguments: [each["id"] for each in queue("queue", "list", *arguments, "--json")["recipients"]] for arguments in wanted}
    assert found == wanted


def test_states(engine: Engine, queue: Queue) -> None:
    """A30, A31: what waits, is held, is scheduled, is under way or was deferred is told apart, and selected by it."""
    later = time.time() + 1000
    numbers = {
        state: put(engine, user="held" if state == "held" else "app") for state in ("waiting", "held", "scheduled", "trying", "deferred")
    }
    change(engine, numbers["scheduled"], due=later)
    change(engine, numbers["trying"], due=later, attempts=1)
    change(engine, numbers["deferred"], due=later, attempts=2, reply="451 later")
    queue("queue", "hold", "--user", "held", "--reason", "spam?")
    listed = queue("queue", "list", "--json")
    assert {each["state"]: each["id"] for each in listed["recipients"]} == {state: queue_id(number) for state, number in numbers.items()}
    assert [(rule["kind"], rule["value"], rule["reason"], rule["running"]) for rule in listed["rules"]] == [
        ("user", "held", "spam?", "finish")
    ]
    for state, number in numbers.items():
        assert [each["id"] for each in queue("queue", "list", "--state", state, "--json")["recipients"]] == [queue_id(number)]
    assert "held, rule 1 (spam?)" in queue("queue", "list")


def stated(engine: Engine, standing: Standing) -> None:
    """Let a daemon that runs have said so."""
    with engine.begin() as connection:
        connection.execute(
            insert(schema.status).values(name="queue", value=msgspec.json.encode(Row(os.getpid(), standing)).decode(), at=1.0)
        )


def test_what_is_under_way_is_not_taken_for_waiting(engine: Engine, queue: Queue) -> None:
    """A31, D3: a transfer that outlasts its retry step, or was let go by hand, is under way as the daemon says, held or not: it is listed,
    counted and explained as such, and what is done to mail that waits does not touch it. What the daemon does not name waits."""
    long, waits, part = put(engine), put(engine), put(engine, "b@example.net", "c@example.net")
    change(engine, long, attempts=1, due=time.time() - 5)
    change(engine, part, attempts=2, due=0.0, reply="451 later")
    names = [queue_id(number) for number in (long, waits, part)]
    transfers = (RunningTransfer(names[0], "example.net"), RunningTransfer(names[2], "example.net", (1,)))
    rule = (StoppedTransfer(names[0], "example.net", 3, "rule 1"),)
    stated(engine, Standing(1, 0, 2, stopped=rule, transfers=transfers))
    queue("queue", "pause", "--id", names[0])

    def listed(state: str) -> list[tuple[str, int]]:
        return [(each["id"], each["number"]) for each in queue("queue", "list", "--state", state, "--json")["recipients"]]

    assert listed("trying") == [(names[0], 0), (names[2], 1)]
    assert listed("waiting") == [(names[1], 0), (names[2], 0)]
    assert listed("held") == []
    level = queue("status", "--json")["levels"][2]
    assert (level["waiting"], level["deferred"]) == (2, 2)
    assert "Waiting for their time: 0." in queue("status")
    assert [each["gate"] for each in queue("explain", names[0], "--json")["waiting"]] == ["stopped"]
    assert [each["gate"] for each in queue("explain", names[2], "--json")["waiting"]] == ["turn", "under-way"]
    assert queue("queue", "cancel", "--user", "app", "--state", "waiting", "--json") == {"recipients": 2}
    assert count(engine) == (2, 2, 2)


def test_an_attempt_whose_next_time_was_moved_is_not_cut_off(engine: Engine, queue: Queue) -> None:
    """D3: what the daemon transfers is under way, whenever it is due; what it does not is cut off, if it began before the daemon."""
    runs, cut = put(engine), put(engine)
    for number in (runs, cut):
        change(engine, number, attempts=7, due=time.time() + 10)  # four hours after it began: before this process
    stated(engine, Standing(0, 0, 1, transfers=(RunningTransfer(queue_id(runs), "example.net"),)))
    gates = [queue("explain", queue_id(number), "--json")["waiting"][0]["gate"] for number in (runs, cut)]
    assert gates == ["under-way", "retry"]


def test_urgent_mail_that_does_not_go_holds_nobody_back(engine: Engine, queue: Queue) -> None:
    """D3: of urgent mail only what may go is named as what goes first: none that a rule or a rate holds, or whose destination is closed."""
    bulk, goes = queue_id(put(engine)), queue_id(put(engine, level=1))
    put(engine, level=1, user="held")
    put(engine, level=1, user="over")
    put(engine, "b@closed.net", level=1)
    queue("queue", "hold", "--user", "held")
    limits = (OverRate("user", "over", time.time() + 60),)
    stated(engine, Standing(3, 0, 1, (BackingOff("closed.net", time.time() + 60, 3, 1),), 1, preempting=1, over_rate=limits))
    (waits,) = queue("explain", bulk, "--json")["waiting"]
    assert (waits["gate"], waits["command"]) == ("preempted", f"smtpplus queue pause --id {goes}")


def test_several_rules_hold_one_message(engine: Engine, queue: Queue) -> None:
    """A31, D3: what several rules hold names them all, for people and for programs."""
    name = queue_id(put(engine))
    queue("queue", "hold", "--user", "app")
    queue("queue", "hold", "--destination", "example.net", "--for", "100d")
    queue("queue", "hold", "--level", "5")
    queue("queue", "pause", "--all", "--for", "15s")
    queue("queue", "pause", "--user", "app")
    (listed,) = queue("queue", "list", "--json")["recipients"]
    assert (listed["rule"], listed["rules"]) == (4, [4, 2, 1, 5])
    assert "held, rule 4 and 3 more" in " ".join(queue("queue", "list").split())
    (waits,) = queue("explain", name, "--json")["waiting"]
    assert waits["at"] is None
    assert "rule 1 and rule 5 are lifted" in waits["next"]
    assert waits["command"] == "smtpplus queue release --rule 4 --rule 2 --rule 1 --rule 5"


def test_pages(engine: Engine, queue: Queue) -> None:
    """A list that is cut says where to go on, and the pages together are the whole."""
    numbers = [put(engine, "a@x.net", "b@x.net") for _ in range(5)]
    pages, after = [], None
    while True:
        page = queue("queue", "list", "--limit", "3", *(["--after", after] if after else []), "--json")
        pages.append([(parse_queue_id(each["id"]), each["number"]) for each in page["recipients"]])
        after = page["next"]
        if after is None:
            break
    assert [len(page) for page in pages] == [3, 3, 3, 1]
    assert [key for page in pages for key in page] == [(number, index) for number in numbers for index in (0, 1)]


def test_show(engine: Engine, queue: Queue) -> None:
    """D3: one message with its envelope, and what each of its recipients waits for."""
    number = put(engine, "a@x.net", "b@y.net", level=2)
    shown = queue("queue", "show", queue_id(number), "--json")
    assert (shown["id"], shown["sender"], shown["level"], shown["size"]) == (queue_id(number), "a@example.com", 2, 2 * CHUNK)
    assert [(each["recipient"], each["state"], each["due"]) for each in shown["recipients"]] == [
        ("a@x.net", "waiting", None),
        ("b@y.net", "waiting", None),
    ]
    assert "a@x.net" in queue("queue", "show", queue_id(number))
    name = queue_id(number + 1)
    assert f"is not in the queue; smtpplus explain {name} tells" in queue("queue", "show", name, status=1)


def test_rules_are_made_and_lifted(queue: Queue) -> None:
    """A31, D7: a rule has its reason, who made it and its end; it is lifted by number, by selector, or by its time."""
    queue("queue", "pause", "--destination", "Gmail.com", "--for", "2h", "--reason", "greylisting")
    queue("queue", "hold", "--level", "5", "--level", "4")
    queue("queue", "hold", "--all")
    rules = queue("queue", "list", "--json")["rules"]
    assert [(rule["kind"], rule["value"], rule["running"]) for rule in rules] == [
        ("destination", "gmail.com", "stop"),
        ("level", "5", "finish"),
        ("level", "4", "finish"),
        ("everything", "", "finish"),
    ]
    assert rules[0]["expires_at"] == pytest.approx(rules[0]["created_at"] + 7200)
    assert rules[0]["who"].endswith("at the command line")
    queue("queue", "resume", "--destination", "gmail.com")
    queue("queue", "release", "--rule", "2")
    queue("queue", "resume", "--all")
    assert [rule["id"] for rule in queue("queue", "list", "--json")["rules"]] == [3]
    assert "There is no such rule: user x" in queue("queue", "release", "--user", "x", status=1)


def test_rules_for_programs(queue: Queue) -> None:
    """A31: what makes and lifts rules says for programs which: what they select, until when, who made them and why."""
    made = queue("queue", "pause", "--user", "a", "--user", "B", "--for", "2h", "--reason", "spam?", "--json")["rules"]
    assert made == queue("queue", "list", "--json")["rules"]
    assert [(rule["id"], rule["kind"], rule["value"], rule["reason"]) for rule in made] == [
        (1, "user", "a", "spam?"),
        (2, "user", "b", "spam?"),
    ]
    (all_,) = queue("queue", "hold", "--all", "--json")["rules"]
    assert (all_["running"], all_["expires_at"]) == ("finish", None)
    assert queue("queue", "resume", "--user", "b", "--rule", "3", "--json") == {"lifted": [made[1], all_]}
    assert queue("queue", "release", "--rule", "1", "--json") == {"lifted": [made[0]]}


def test_cancel(engine: Engine, queue: Queue) -> None:
    """Cancelling takes away recipients, and a message with its chunks only with its last; the daemon is left a note for each."""
    two = put(engine, "a@x.net", "b@y.net")
    put(engine, user="other")
    assert queue("queue", "cancel", "--destination", "x.net", "--json") == {"recipients": 1}
    assert count(engine) == (2, 2, 2)
    assert queue("queue", "cancel", "--id", queue_id(two), "--reason", "a mistake") == "1 recipient cancelled.\n"
    assert count(engine) == (1, 1, 1)
    with engine.connect() as connection:
        notes = connection.execute(select(schema.changes.c.address, schema.changes.c.what, schema.changes.c.reason)).all()
    assert [tuple(note) for note in notes] == [("a@x.net", "cancelled", ""), ("b@y.net", "cancelled", "a mistake")]


def test_what_was_done_is_told_before_a_daemon_takes_note(engine: Engine, queue: Queue) -> None:
    """B6, D3: while no daemon runs, explain tells what was cancelled or put off, by whom and why; and once, if the history has it too."""
    number = put(engine, "a@x.net", "b@y.net")
    queue("queue", "cancel", "--destination", "x.net", "--reason", "a mistake")
    queue("queue", "reschedule", "--all", "--in", "2h")
    with engine.begin() as connection:
        steps = story.encode([story.chapter(event) for event in actions.noted(connection, number, 0.0)[:1]])
        connection.execute(insert(schema.history_steps).values(message_id=number, number=1, story=steps))
    told = [each["text"] for each in queue("explain", queue_id(number), "--json")["decisions"]]
    assert len(told) == 2
    assert told[0].startswith("a@x.net was taken out of the queue by ")
    assert told[0].endswith(" at the command line: a mistake")
    assert told[1].startswith("b@y.net was put off until ")


def test_a_slip_does_not_look_like_success(engine: Engine, queue: Queue) -> None:
    """A name that nobody has, and which no queued mail meets, is noted; rules for what is to come are made all the same."""
    put(engine, user="gone")
    for arguments, note in (
        (("--user", "shpo"), "Note: there is no user shpo, and nothing queued matches"),
        (("--list", "nolist"), "Note: there is no list nolist, and nothing queued matches"),
        (("--destination", "gmial.com"), "Note: nothing queued matches destination gmial.com now"),
        (("--destination", "smtp://smrt:25"), "Note: no [[route]] has via smtp://smrt:25"),
        (("--sender-domain", "exmaple.com"), "Note: nothing queued matches sender-domain exmaple.com now"),
    ):
        assert note in queue("queue", "list", *arguments)
        assert note in queue("queue", "cancel", *arguments)
        assert f"{note}" in queue("queue", "hold", *arguments)
    for arguments in (("--user", "gone"), ("--list", "default"), ("--destination", "smtp://smart:25"), ("--level", "1")):
        assert "Note" not in queue("queue", "hold", *arguments)
    assert len(queue("queue", "list", "--json")["rules"]) == 9


def test_a_message_that_is_not_there_is_refused(engine: Engine, queue: Queue) -> None:
    """Who names a queue ID that is nowhere gets 1; what else was named is done, and no rule is made."""
    there, nowhere = queue_id(put(engine)), queue_id(NEW_ID())
    assert f"Message {nowhere} is not in the queue" in queue("queue", "hold", "--id", there, "--id", nowhere, status=1)
    assert queue("queue", "list", "--json")["rules"] == []
    for verb in (("retry",), ("reschedule", "--in", "2h"), ("cancel",)):
        output = queue("queue", *verb, "--id", nowhere, "--id", there, status=1)
        assert "1 recipient" in output and f"Message {nowhere} is not in the queue" in output
    assert count(engine) == (0, 0, 0)
    assert f"Message {there} is not in the queue" in queue("queue", "list", "--id", there)


def test_many_are_changed_in_batches(engine: Engine, queue: Queue) -> None:
    """More than a batch is changed to the last, and each change once."""
    row = {"number": 0, "address": "b@x.net", "level": 3, "user": "app", "attempts": 1, "due": time.time() + 1000, "reply": "451 later"}
    with engine.begin() as connection:
        connection.execute(insert(schema.recipients), [row | {"message_id": NEW_ID()} for _ in range(1203)])
    put(engine)
    assert queue("queue", "retry", "--all", "--state", "deferred", "--json") == {"recipients": 1203}
    assert queue("queue", "retry", "--list", "default", "--state", "deferred", "--json") == {"recipients": 0}
    assert queue("queue", "cancel", "--all", "--state", "deferred", "--json") == {"recipients": 0}
    assert queue("queue", "cancel", "--all", "--json") == {"recipients": 1204}
    assert count(engine) == (0, 0, 0)


def test_reschedule(engine: Engine, queue: Queue) -> None:
    """A30: mail is put off to a time in words or by the clock, and retried now."""
    number = put(engine)
    queue("queue", "reschedule", "--all", "--in", "2h")
    (listed,) = queue("queue", "list", "--json")["recipients"]
    assert listed["state"] == "scheduled"
    assert listed["due"] == pytest.approx(time.time() + 7200, abs=60)
    queue("queue", "reschedule", "--id", queue_id(number), "--at", "2033-05-18T05:33:20+02:00")
    assert queue("queue", "list", "--json")["recipients"][0]["due"] == 2_000_000_000
    queue("queue", "retry", "--user", "app")
    assert queue("queue", "list", "--json")["recipients"][0]["state"] == "waiting"


def test_what_does_not_go_is_told(engine: Engine, queue: Queue) -> None:
    """D3: of what is to be tried now it is said how much is held by which rule, and how much is over which limit."""
    for user in ("held", "held", "fast", "app"):
        put(engine, user=user)
    change(engine, put(engine, user="fast"), attempts=1, due=time.time() + 1000, reply="451 later")  # limits are for first attempts
    row = Row(os.getpid(), Standing(5, 0, 0, over_rate=(OverRate("user", "fast", time.time() + 60, "100/h"),)))
    with engine.begin() as connection:
        connection.execute(insert(schema.status).values(name="queue", value=msgspec.json.encode(row).decode(), at=1.0))
    assert "Note" not in queue("queue", "retry", "--user", "app")
    queue("queue", "hold", "--user", "held", "--reason", "spam?")
    told = queue("queue", "retry", "--all")
    assert "Note: 2 of 5 will not go now: held by rule 1 (spam?); smtpplus queue release --rule 1 lets it go." in told
    assert "Note: 1 of 5 will not go now: the limit of 100/h of user fast is used up until " in told
    assert "5 recipients due now." in told


def test_wrong_usage(queue: Queue) -> None:
    """What is not meant clearly changes nothing: status 2 and a sentence."""
    for arguments, sentence in (
        (("cancel",), "or --all for everything"),
        (("cancel", "--all", "--user", "x"), "leave it out, and the selectors say"),
        (("cancel", "--state", "deferred"), "or --all --state deferred for everything in that state"),
        (("retry", "--state", "held"), "Name what is meant by selectors"),
        (("hold", "--user", "x", "--level", "3"), "A rule selects by one thing"),
        (("hold",), "A rule selects by one thing"),
        (("list", "--level", "9"), "levels are 1 to 5"),
        (("list", "--id", "7"), "--id: '7' is not a queue ID"),
        (("list", "--after", "x"), "--after takes what a list ends with"),
        (("release",), "Name the rule"),
        (("hold", "--all", "--for", "soon"), "is no duration"),
        (("pause", "--all", "--for", "0s"), "a rule that ends at once holds nothing"),
        (("reschedule", "--all"), "Say when"),
        (("reschedule", "--all", "--at", "tomorrow"), "is no time"),
        (("reschedule", "--all", "--at", "2033-05-18", "--in", "2h"), "not by both"),
        (("reschedule", "--all", "--in", "9999999d"), "at most 999,999,999 seconds"),
        (("reschedule", "--all", "--at", "9999-12-31"), "999,999,999 seconds (31 years) at most"),
        (("reschedule", "--all", "--at", "2020-05-18"), "is over; smtpplus queue retry"),
    ):
        output = queue("queue", *arguments, status=2)
        assert sentence in " ".join(output.split()), output


@pytest.mark.parametrize(
    ("selector", "held"),
    [
        (["--all"], 4),
        (["--user", "bulk"], 1),
        (["--list", "news"], 1),
        (["--sender-domain", "other.com"], 1),
        (["--destination", "x.net"], 2),
        (["--destination", "smtp://smart:25"], 1),
        (["--id"], 1),
        (["--level", "4"], 0),
        ([], 0),
    ],
)
def test_status_counts_what_is_held_apart(engine: Engine, queue: Queue, selector: list[str], held: int) -> None:
    """D1, A31: whatever a rule holds is counted as `queue list` counts it, and none of it, nor what is scheduled or put off, is the oldest
    that waits; that counts from when it was due."""
    name = queue_id(put(engine, "a@x.net"))
    put(engine, "b@X.net", user="bulk", list="news", sender="n@Other.COM")
    put(engine, '"q@r"@y.smart.net')
    change(engine, put(engine, "d@z.net"), due=time.time() - 30)
    change(engine, put(engine, "e@z.net"), due=time.time() + 1000)
    if selector:
        queue("queue", "hold", *selector, *([name] if selector == ["--id"] else []))
    level = queue("status", "--json")["levels"][2]
    listed = [each["state"] for each in queue("queue", "list", "--json")["recipients"]]
    assert (level["held"], level["waiting"], level["scheduled"]) == (held, 4 - held, 1)
    assert (listed.count("held"), listed.count("waiting"), listed.count("scheduled")) == (held, 4 - held, 1)
    assert level["oldest"] is None if held == 4 else 0 <= level["oldest"] < 20


def test_the_depth_is_one_look_at_the_recipients(engine: Engine) -> None:
    """However many wait, and with whatever rules: the recipients are scanned once, and no message is read."""
    with engine.connect() as connection:
        for rules in ((), tuple(Rule(number, kind, queue_id(1)) for number, kind in enumerate(KINDS))):
            query = _query("sqlite", Rules(rules), 1.0, [])
            text = str(query.compile(dialect=connection.dialect, compile_kwargs={"literal_binds": True}))
            plan = [row[-1] for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {text}")]
            assert [step for step in plan if not step.startswith("USE TEMP B-TREE")] == ["SCAN recipients"]


def test_status(engine: Engine, queue: Queue) -> None:
    """D1: depth and oldest wait per level, and the rules in force, from the database alone."""
    put(engine, level=1)
    put(engine, "a@x.net", "b@x.net", level=5)
    change(engine, put(engine, level=5), due=time.time() + 1000, attempts=1, reply="451 later")
    queue("queue", "hold", "--level", "5")
    found = queue("status", "--json")
    assert (found["running"], found["daemon"]) == (False, None)
    assert [(level["waiting"], level["held"], level["deferred"]) for level in found["levels"]] == [
        (1, 0, 0),
        *[(0, 0, 0)] * 3,
        (0, 2, 1),
    ]
    assert [level["oldest"] is None for level in found["levels"]] == [False, True, True, True, True]
    assert [rule["value"] for rule in found["rules"]] == ["5"]
    assert "The daemon does not run." in queue("status")


def test_status_counts_what_waits_for_its_time(engine: Engine, queue: Queue) -> None:
    """D1: what waits for its time is counted in the queue: the times of mail that went, was cancelled or is under way do not count."""
    row = Row(os.getpid(), Standing(0, 7, 2))
    with engine.begin() as connection:
        connection.execute(insert(schema.status).values(name="queue", value=msgspec.json.encode(row).decode(), at=1.0))
    assert "Waiting for their time: 0." in queue("status")
    later = time.time() + 1000
    change(engine, put(engine), due=later, attempts=1)  # under way for the first time
    for _ in range(2):  # of which one is under way
        change(engine, put(engine), due=later, attempts=1, reply="451 later")
    change(engine, put(engine), due=later)
    assert "Waiting for their time: 2." in queue("status")
    assert queue("status", "--json")["daemon"]["delayed"] == 2


def test_status_names_the_limits_that_are_reached(engine: Engine, queue: Queue) -> None:
    """D3: how many attempts are under way of how many, and the destinations that take no more."""
    crowded = (Crowded("full.net", 5, 5, 16, 4, 70), Crowded("free.net", 1, 5, 16, 4, 1))
    row = Row(os.getpid(), Standing(71, 0, 6, slots=Slots(100, 4, 10, (1, 2)), crowded=crowded))
    with engine.begin() as connection:
        connection.execute(insert(schema.status).values(name="queue", value=msgspec.json.encode(row).decode(), at=1.0))
    told = queue("status")
    assert "Under way: 6 of 100 ([delivery] connections)." in told
    assert ("full.net" in told, "free.net" in told) == (True, False)
    assert len(queue("status", "--json")["daemon"]["crowded"]) == 2


def test_doctor_says_why_mail_waits_for_a_next_hop(engine: Engine, queue: Queue) -> None:
    """A smarthost that does not take our mail has a cross, with the newest answer and the message that tells more."""
    told = {each["text"]: each["good"] for each in json.loads(queue("doctor", "--json", status=1))["findings"] if each["part"] == "route"}
    assert told == {"no mail waits after an attempt at smtp://smart:25": None}
    for reply in ("451 4.4.1 old", "454 4.7.0 smart did not accept our login: 535 no"):
        number = put(engine, "y@a.smart.net")
        change(engine, number, due=time.time() + 1000, attempts=1, reply=reply)
    change(engine, put(engine, "y@elsewhere.net"), due=time.time() + 1000, attempts=1, reply="451 not by this route")
    (found,) = [each for each in json.loads(queue("doctor", "--json", status=1))["findings"] if each["part"] == "route"]
    assert not found["good"]
    assert "waits, as the last attempt ended with: 454 4.7.0 smart did not accept our login: 535 no" in found["text"]
    assert f"smtpplus explain {queue_id(number)}" in found["remedy"]


def test_status_names_who_waits_for_a_limit(engine: Engine, queue: Queue) -> None:
    """C7: users, lists and destinations over a limit are named, with the limit and when there is room again."""
    waits = (OverRate("list", "news", 1.0e9, "500 recipients an hour"), OverRate("destination", "x.net", 1.0e9, "10 octets a day"))
    row = Row(os.getpid(), Standing(0, 0, 0, over_rate=waits))
    with engine.begin() as connection:
        connection.execute(insert(schema.status).values(name="queue", value=msgspec.json.encode(row).decode(), at=1.0))
    told = queue("status")
    assert told.count("2001-09-") == 2
    assert "500 recipients an hour" in told and "news" in told and "x.net" in told
    assert [each["name"] for each in queue("status", "--json")["daemon"]["over_rate"]] == ["news", "x.net"]


def test_deleting_a_user_may_drop_queued_mail(engine: Engine, queue: Queue) -> None:
    """A5: with --queued drop the user's queued mail is cancelled with them, other mail stays; with keep it all stays."""
    for name in ("one", "two"):
        queue("user", "add", name, "--domains", "a.com", "--vouch", "--json")
        put(engine, user=name)
    queue("user", "delete", "one", "--queued", "keep")
    assert count(engine) == (2, 2, 2)
    assert "Queued recipients dropped: 1." in queue("user", "delete", "two", "--queued", "drop")
    assert [each["user"] for each in queue("queue", "list", "--json")["recipients"]] == ["one"]
    assert count(engine) == (1, 1, 1)


def test_nothing_is_said_of_who_is_not_there(queue: Queue) -> None:
    """A mistyped user or list has no mail and no problems: that is refused, and not told as if all were well."""
    queue("user", "add", "app", "--allow-any")
    for arguments in (["stats", "--user"], ["explain", "--user"], ["stats", "--json", "--by", "user", "--user"]):
        assert 'There is no user "shpo"; `smtpplus user list` names them.' in queue(*arguments, "shpo", status=1)
        queue(*arguments, "App")
    for arguments in (["stats", "--list"], ["alerts", "list", "--list"]):
        assert 'There is no list "nolist"; `smtpplus list list` names them.' in queue(*arguments, "nolist", status=1)
        queue(*arguments, "Default")


def test_failing_channels_are_told_in_every_form(engine: Engine, queue: Queue) -> None:
    """B6: a channel that fails stands in the alerts for people and for programs, also while there are no problems."""
    assert queue("alerts", "list", "--json") == []
    assert queue("alerts", "settings", "--json")["failing"] == []
    with engine.begin() as connection:
        owed.give_up(connection, 1, "the webhook answered 410", 1.0e9)
    (said,) = queue("alerts", "settings", "--json")["failing"]
    assert said.endswith("the webhook answered 410")
    for form in ("list", "settings"):
        assert said in " ".join(queue("alerts", form).split())
