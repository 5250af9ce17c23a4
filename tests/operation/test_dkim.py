"""`smtpplus dkim` on a real database and a real DNS server."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from cryptography.hazmat.primitives.serialization import load_der_public_key

from smtpplus.mail.dkim import published_key
from smtpplus.operation.cli import main
from tests.rig.name_server import NameServer

Run = Callable[..., Result]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Call `smtpplus --config … ARGUMENTS` in this process; `servers` answer for DNS."""
    path = tmp_path / "smtpplus.toml"

    def call(*arguments: str, servers: str = "127.0.0.1:9") -> Result:
        path.write_text(f'hostname = "relay.example.com"\nstate_directory = "state"\n[dns]\nservers = ["{servers}"]\n')
        result = CliRunner().invoke(main, ["--config", str(path), "dkim", *arguments])
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exc_info
        return result

    return call


def answer(result: Result) -> Any:
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_a_key_is_made_and_its_record_printed(run: Run) -> None:
    """C5: `add` prints one line of a zone, in strings of at most 255, with the public key of RSA 2048; the private key is nowhere."""
    result = run("add", "A.Example", "--selector", "s1")
    [line] = re.findall(r"^s1\._domainkey\.a\.example\. IN TXT .*$", result.stdout, re.MULTILINE)
    strings = re.findall(r'"([^"]*)"', line)
    assert max(map(len, strings)) <= 255
    kind, key = published_key("".join(strings))
    public: Any = load_der_public_key(base64.b64decode(key))
    assert (kind, public.key_size) == ("rsa", 2048)
    assert "PRIVATE" not in result.output + run("show", "a.example").output + run("list", "--json").output
    assert run("show", "a.example").stdout.strip() == line


def test_both_algorithms_have_selectors_of_their_own(run: Run) -> None:
    """One record holds one key (RFC 8463 §3), so two keys made at once have two names."""
    made = answer(run("add", "a.example", "--selector", "x", "--algorithm", "both", "--json"))
    assert [(key["record"], key["algorithm"], key["active"]) for key in made] == [
        ("x-rsa._domainkey.a.example", "rsa", True),
        ("x-ed25519._domainkey.a.example", "ed25519", True),
    ]
    assert len(published_key(made[1]["value"])[1]) == 44  # 32 octets
    assert answer(run("list", "--json")) == made == answer(run("show", "a.example", "--json"))


@pytest.mark.parametrize(
    ("arguments", "status", "says"),
    [
        (["add", "a.example", "--selector", "s"], 1, "There is a key with the selector s for a.example"),
        (["add", "no domain"], 2, ""),
        (["add", "[192.0.2.1]"], 2, "keys belong to domains"),
        (["add", "a.example", "--selector", "a_b"], 2, "no selector"),
        (["add", "a.example", "--selector", "x" * 64], 2, "no selector"),
        (["add", "a.example", "--algorithm", "dsa"], 2, "dsa"),
        (["show", "b.example"], 1, "`smtpplus dkim add` makes one"),
        (["remove", "a.example", "--selector", "t"], 1, "no key with the selector t"),
    ],
)
def test_what_cannot_be_done_is_one_sentence(run: Run, arguments: list[str], status: int, says: str) -> None:
    """A refusal says why and what to do, and changes nothing."""
    run("add", "a.example", "--selector", "s", "--algorithm", "ed25519")
    result = run(*arguments)
    assert result.exit_code == status
    assert says in result.stderr
    assert [key["selector"] for key in answer(run("list", "--json"))] == ["s"]


def test_keys_are_removed(run: Run) -> None:
    """`remove` takes one key or all of a domain, and leaves those of others."""
    for domain, selector in (("a.example", "s"), ("a.example", "t"), ("b.example", "s")):
        run("add", domain, "--selector", selector, "--algorithm", "ed25519")
    assert answer(run("remove", "a.example", "--selector", "s", "--json")) == {"removed": ["s._domainkey.a.example"]}
    assert run("remove", "A.example").stdout == "The key t of a.example was removed.\n"
    assert [key["domain"] for key in answer(run("list", "--json"))] == ["b.example"]


def test_a_record_is_looked_for(run: Run, tmp_path: Path) -> None:
    """`check` tells a published record from a missing and another one; a key that waited for its record signs once it is there."""
    [waits] = answer(run("add", "a.example", "--selector", "s", "--wait", "--algorithm", "ed25519", "--json"))
    [other] = answer(run("add", "a.example", "--selector", "t", "--json"))
    with NameServer(tmp_path) as dns:
        result = run("check", "a.example", "--json", servers=dns.server)
        assert (result.exit_code, [each["state"] for each in json.loads(result.stdout)]) == (1, ["missing", "missing"])
        assert [key["active"] for key in answer(run("list", "--json"))] == [False, True]
        for key in (waits, other):
            dns.publish(key["record"], waits["value"])
        result = run("check", "a.example", servers=dns.server)
        assert result.exit_code == 1
        assert result.stdout.splitlines()[0] == "s._domainkey.a.example: published, and signs from now on."
        assert "t._domainkey.a.example: other. The record has another key" in result.stdout
        assert run("check", "a.example", "--selector", "s", servers=dns.server).stdout == "s._domainkey.a.example: published.\n"
    assert [key["active"] for key in answer(run("list", "--json"))] == [True, True]
