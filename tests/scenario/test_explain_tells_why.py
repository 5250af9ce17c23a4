"""`smtpplus explain` over the running daemon: delivered, put off, held and refused mail, each with its reason and its remedy."""

import contextlib
import json
import re
import smtplib
import sqlite3
import time
from pathlib import Path
from typing import Any

import pytest

from tests.rig import sender
from tests.rig.commands import ask, run
from tests.rig.daemon import Daemon
from tests.rig.next_hop import NextHop

APP = "app@example.com"
PATIENCE = 20.0  # seconds


def explained(daemon: Daemon, what: str, done: Any) -> Any:
    """What is explained of `what` as soon as `done` holds of it; bounded."""
    deadline = time.monotonic() + PATIENCE
    while True:
        result = run(daemon, "explain", what, "--json")
        if result.exit_code == 0 and done(told := json.loads(result.stdout)):
            return told
        assert time.monotonic() < deadline, result.output
        time.sleep(0.1)


def submit(client: smtplib.SMTP, to: str, subject: str, **fields: str) -> str:
    """Send one message; its queue ID."""
    client.mail(APP)
    client.rcpt(to)
    _, answer = client.data(sender.compose(subject, sender=APP, to=to, fields=fields))
    found = re.search(rb"queued as (\w+)", answer)
    assert found, answer
    return found[1].decode()


def test_explain_tells_every_decision_and_the_gate(tmp_path: Path) -> None:
    """D3, B6, A7: explain takes a queue ID, a Message-ID, a reference from a refusal, and a user; it names gate, next step and command.

    A6: a password that is typed as a user name is kept nowhere, and yet found by who knows it.
    """
    refusals = {"slow@example.net": ["451 4.2.0 come back later"] * 50}
    with NextHop(refusals=refusals) as hop, Daemon(tmp_path, routes=[{"via": hop.via}], settings={"queue": {"retry": ["1h"]}}) as daemon:
        password = daemon.add_user("app")
        daemon.start()
        with sender.session(daemon.port, "app", password) as client:
            sent = submit(client, "ann@example.net", "done", **{"Message-ID": "<one@client.example>"})
            slow = submit(client, "slow@example.net", "slow")
            with pytest.raises(smtplib.SMTPSenderRefused) as refused:
                client.sendmail("x@stranger.example", ["ann@example.net"], b"")
        text = refused.value.smtp_error
        assert isinstance(text, bytes)
        reference = re.search(rb"\(ref (\w{13})\)", text)
        assert reference, text

        told = explained(daemon, sent, lambda told: told["state"] == "done")
        assert [each["what"] for each in told["decisions"]] == ["Accepted", "Delivered"]
        assert "250" in told["decisions"][1]["text"]
        assert explained(daemon, "<one@client.example>", lambda _: True)["id"] == sent

        told = explained(daemon, slow, lambda told: told["waiting"] and told["waiting"][0]["gate"] == "retry")
        assert "451 4.2.0 come back later" in told["waiting"][0]["why"]
        assert told["waiting"][0]["at"] > time.time() + 3000
        assert told["waiting"][0]["command"] == f"smtpplus queue retry --id {slow}"
        assert told["decisions"][-1]["what"] == "Deferred"

        told = explained(daemon, reference[1].decode().lower(), lambda _: True)
        assert (told["kind"], told["reason"], told["user"]) == ("refusal", "domain_not_authorized", "app")
        assert told["command"] == "smtpplus sender add --verify app stranger.example"

        with pytest.raises(smtplib.SMTPAuthenticationError), sender.session(daemon.port, "app", "wrong"):
            pass
        deadline = time.monotonic() + PATIENCE
        while len(found := ask(daemon, "explain", "--user", "APP", "--since", "1h")) < 5 and time.monotonic() < deadline:
            time.sleep(0.1)
        told = [each.get("reason", each["kind"]) for each in found]  # smtplib tries two mechanisms
        assert told == ["message", "message", "domain_not_authorized", "wrong_password", "wrong_password"]
        with pytest.raises(smtplib.SMTPAuthenticationError), sender.session(daemon.port, password, password):
            pass
        deadline = time.monotonic() + PATIENCE
        while run(daemon, "explain", "--user", password).exit_code and time.monotonic() < deadline:
            time.sleep(0.1)
        found = ask(daemon, "explain", "--user", password)
        assert [each["reason"] for each in found] == ["unknown_user"] * 2
        assert re.fullmatch(r"unknown:[0-9a-f]{10}", found[0]["user"])
        kept = [each.read_bytes() for each in daemon.state.rglob("*") if each.is_file()] + [daemon.log().encode()]
        assert kept
        assert not any(password.encode() in each for each in kept)
        plain = run(daemon, "explain", slow).stdout
        assert f"To change that: smtpplus queue retry --id {slow}" in plain
        assert run(daemon, "explain", "0000000000000").exit_code == 1


def test_without_history_nothing_is_written(tmp_path: Path) -> None:
    """`[queue] history = "0s"` writes no row of history, forgets those that there are, and what waits is explained all the same."""
    settings = {"queue": {"history": "0s", "retry": ["1h"]}}
    with Daemon(tmp_path, routes=[{"via": "smtp://127.0.0.1:9"}], settings=settings) as daemon:
        password = daemon.add_user("app")
        daemon.start()
        with sender.session(daemon.port, "app", password) as client:
            client.mail(APP)
            for number in range(7):
                client.rcpt(f"{number}@example.net")
            _, answer = client.data(sender.compose("waits", sender=APP, to="all@example.net"))
            waiting = answer.split()[-1].decode()
        told = explained(daemon, waiting, lambda told: told["waiting"] and told["waiting"][0]["gate"] == "retry")
        assert told["decisions"] == []
        assert len(told["waiting"]) == 7
        assert explained(daemon, f"<{waiting}@relay.example.com>", lambda _: True)["id"] == waiting
        shown = run(daemon, "explain", waiting).stdout
        assert shown.count("Now: ") == 1
        assert "4@example.net and 2 more: waits for attempt 2" in shown
        daemon.terminate()
        assert (daemon.stored("history"), daemon.stored("history_steps"), daemon.stored("refusals")) == (0, 0, 0)
        with contextlib.closing(sqlite3.connect(daemon.state / "smtpplus.sqlite")) as database:
            values = ", ".join(f"({number}, 0, 's', 'c', 'app', '', '', 'too_large', '552', 1)" for number in range(5))
            database.execute(f"INSERT INTO refusals VALUES {values}")  # of a time with a history
            database.commit()
        daemon.start()
        deadline = time.monotonic() + PATIENCE
        while daemon.stored("refusals") and time.monotonic() < deadline:
            time.sleep(0.1)
        assert daemon.stored("refusals") == 0
