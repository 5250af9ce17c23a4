"""From a file to a configuration: the documented defaults are those of the code, and every fault has its sentence and its place."""

from __future__ import annotations

import re
import sys
import tomllib
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from smtpplus.config import Configuration, ConfigurationError, PortRange, Route, database_url, load, locate

TEMPLATE = Path(__file__).parents[2] / "etc" / "smtpplus.toml"
FAULTY = Path(__file__).parent / "faulty"


def written(tmp_path: Path, text: str) -> Path:
    """A file with this text."""
    path = tmp_path / "smtpplus.toml"
    path.write_text(text)
    return path


def faults(path: Path) -> list[str]:
    """What is wrong with the file, without the directory in front."""
    with pytest.raises(ConfigurationError) as caught:
        load(path)
    return [sentence.removeprefix(f"{path.parent}/") for sentence in caught.value.faults]


def test_template_is_the_defaults(tmp_path: Path) -> None:
    """etc/smtpplus.toml documents every option, key by key, each commented out at the default of the code."""
    text = TEMPLATE.read_text()
    assert all(not line or line.startswith("#") for line in text.splitlines())
    assert load(TEMPLATE) == Configuration()
    uncommented = re.sub(r"(?m)^# (?=\[|[a-z_]+ = )", "", text)
    assert load(written(tmp_path, uncommented)) == Configuration()
    table = tomllib.loads(uncommented)
    documented = {(key, name) for key, value in table.items() for name in (_one(value) if _is_table(value) else [""])}
    assert documented == {(field.encode_name, name) for field in msgspec.structs.fields(Configuration) for name in _names(field)}


def _is_table(value: Any) -> bool:
    return isinstance(value, dict) or (isinstance(value, list) and bool(value) and isinstance(value[0], dict))


def _one(value: Any) -> Any:
    return value[0] if isinstance(value, list) else value


def _names(field: msgspec.structs.FieldInfo) -> list[str]:
    value = getattr(Configuration(), field.name)
    value = value[0] if isinstance(value, tuple) else value
    return [inner.encode_name for inner in msgspec.structs.fields(value)] if isinstance(value, msgspec.Struct) else [""]


def test_example_of_the_architecture(tmp_path: Path) -> None:
    """A configuration with every kind of value becomes typed values in base units; relative paths count from the file's directory."""
    for name in ("cert.pem", "key.pem", "password"):
        (tmp_path / name).touch()
    path = written(
        tmp_path,
        """
        hostname = "Mail.Example.com"
        state_directory = "state"
        [[listen]]
        ports = "2525"
        interfaces = ["127.0.0.1"]
        trusted_networks = ["10.0.0.0/8"]
        trusted_as = "printer"
        [[listen]]
        ports = "2500-2600"
        interfaces = ["127.0.0.2", "::"]
        tls = "implicit"
        [tls]
        certificate = "cert.pem"
        private_key = "key.pem"
        [limits]
        message_size = "1 MiB"
        idle = "1m"
        [queue]
        retry = ["1s", "2m"]
        [dns]
        servers = ["127.0.0.1:5353"]
        [[route]]
        destination = ".example.net"
        via = "maildir:box"
        [[route]]
        via = "smtp://127.0.0.1:2526"
        username = "u"
        password_file = "password"
        [alerts]
        from = "a@example.com"
        [http]
        listen = ""
        """,
    )
    configuration = load(path)
    assert configuration.hostname == "mail.example.com"
    assert configuration.state_directory == tmp_path / "state"
    assert database_url(configuration) == f"sqlite:///{tmp_path}/state/smtpplus.sqlite"
    assert [listen.ports for listen in configuration.listen] == [
        (PortRange(2525, 2525, alone=True),),
        (PortRange(2500, 2600, alone=False),),
    ]
    assert configuration.listen[0].trusted_networks == (ip_network("10.0.0.0/8"),)
    assert (configuration.tls.certificate, configuration.tls.private_key) == (f"{tmp_path}/cert.pem", f"{tmp_path}/key.pem")
    assert (configuration.limits.message_size, configuration.limits.idle) == (1_048_576, 60.0)
    assert configuration.queue.retry == (1.0, 120.0)
    assert configuration.dns.servers == (("127.0.0.1", 5353),)
    assert configuration.route == (
        Route(destination=".example.net", via=f"maildir:{tmp_path}/box"),
        Route(via="smtp://127.0.0.1:2526", username="u", password_file=f"{tmp_path}/password"),
    )
    assert (configuration.alerts.from_, configuration.http.listen) == ("a@example.com", None)


def test_alerts_come_from_the_host_name(tmp_path: Path) -> None:
    """Without an address of their own, alerts come from smtpplus@ the host name."""
    assert load(written(tmp_path, 'hostname = "m.example.com"')).alerts.from_ == "smtpplus@m.example.com"


def test_postgresql_uses_psycopg_3(tmp_path: Path) -> None:
    """A PostgreSQL URL gets the driver that is installed, and the configuration's repr does not show its password."""
    configuration = load(written(tmp_path, 'database = "postgresql://u:hidden@h/n"'))
    assert database_url(configuration) == "postgresql+psycopg://u:hidden@h/n"
    assert "hidden" not in repr(configuration)


@pytest.mark.parametrize("path", sorted(FAULTY.glob("*.toml")), ids=lambda path: path.stem)
def test_faulty_file(path: Path) -> None:
    """Each faulty file is refused with exactly the sentences that stand in its `#! ` lines, all in one go, in the order of lines."""
    expected = [line.removeprefix("#! ") for line in path.read_text().splitlines() if line.startswith("#! ")]
    assert expected
    assert faults(path) == expected


def test_no_such_file(tmp_path: Path) -> None:
    """A missing file is one sentence that says how to name one."""
    assert faults(tmp_path / "none.toml") == ["none.toml: there is no such file; name one with --config or SMTPPLUS_CONFIG."]


def test_unreadable_files(tmp_path: Path) -> None:
    """A directory, text that is not UTF-8, and a name that cannot be one are a sentence each."""
    path = tmp_path / "x.toml"
    path.write_bytes(b'hostname = "\xff"')
    assert faults(path) == ["x.toml: the file is not UTF-8 text: octet 13 does not belong there."]
    assert faults(tmp_path) == [f"{tmp_path.name}: the file cannot be read: Is a directory."]
    assert len(faults(Path("a\0b"))) == 1


def test_brackets_without_end(tmp_path: Path) -> None:
    """A file that the parser cannot hold is a sentence, not a traceback."""
    assert len(faults(written(tmp_path, "a = " + "[" * 100_000))) == 1


def test_password_of_the_database_is_not_repeated(tmp_path: Path) -> None:
    """A faulty database URL is not shown: it may hold a password."""
    for text in ('database = "mysql://u:hidden@h/n"', 'database = ["postgresql://u:hidden@h/n"]'):
        (sentence,) = faults(written(tmp_path, text))
        assert sentence.startswith("smtpplus.toml:1: database")
        assert "hidden" not in sentence


def test_locate() -> None:
    """--config names the file; SMTPPLUS_CONFIG stands in for it; else it is /etc/smtpplus/smtpplus.toml."""
    environment = {"SMTPPLUS_CONFIG": "/b.toml"}
    assert locate("/a.toml", environment) == Path("/a.toml")
    assert locate(None, environment) == Path("/b.toml")
    assert locate(None, {}) == Path("/etc/smtpplus/smtpplus.toml")


_keys = st.sampled_from(
    ["hostname", "listen", "limits", "ports", "queue", "retry", "route", "via", "database", "dns", "http", "x y", "tls"]
)
_trees = st.recursive(
    st.one_of(st.booleans(), st.integers(-(2**40), 2**40), st.floats(), st.text(max_size=8)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(_keys, inner, max_size=3)),
    max_leaves=12,
)


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return '"' + "".join(f"\\U{ord(character):08X}" for character in value if not "\ud800" <= character <= "\udfff") + '"'
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f'"{key}" = {_toml(inner)}' for key, inner in value.items()) + "}"
    return str(value)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(_keys, _trees, max_size=4))
def test_any_tree_is_a_configuration_or_sentences(tmp_path: Path, tree: dict[str, Any]) -> None:
    """Whatever values stand under whatever keys: the file loads, or each fault is one line with the file and a line number."""
    path = written(tmp_path, "\n".join(f'"{key}" = {_toml(value)}' for key, value in tree.items()))
    try:
        load(path)
    except ConfigurationError as error:
        assert error.faults
        for sentence in error.faults:
            assert re.fullmatch(rf"{re.escape(str(path))}:\d+: [^\n]+[.?]", sentence)


def test_very_many_routes(tmp_path: Path) -> None:
    """A [[route]] costs a few hundred calls to read, however many there are, so that ten thousand are read in half a second."""

    def calls(routes: int) -> int:
        """Calls of functions that reading so many routes takes."""
        block = '[[route]]\ndestination = "d{0}.example.net"\nvia = "smtp://h{0}.example.com:2525"\ntls = "none"\n'
        path, count = written(tmp_path, "".join(block.format(number) for number in range(routes))), 0

        def called(frame: Any, event: str, argument: Any) -> None:
            nonlocal count
            count += event in ("call", "c_call")

        sys.setprofile(called)
        try:
            found = load(path)
        finally:
            sys.setprofile(None)
        assert len(found.route) == routes
        return count

    few, more, most = calls(10), calls(100), calls(400)
    assert more - few < 90 * 300
    assert most - more < 300 * 300
