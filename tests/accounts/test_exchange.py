"""Users as a file: what is written is read back equal, and a damaged file is told line by line."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smtpplus.accounts import bulk, exchange, fields, files, lists, passwords, store
from smtpplus.accounts.exchange import FileFaults
from smtpplus.accounts.files import Format
from smtpplus.accounts.settings import UNSET, Settings
from smtpplus.accounts.user import Secret, Sender, User
from smtpplus.storage.engine import create_engine, migrate
from tests.accounts.test_settings import settings as all_settings

HASH = passwords.hash_password("secret")
SCRAM = passwords.scram_verifier("secret")
FORMATS: list[Format] = ["toml", "csv"]

times = st.floats(1.0, 4e9, allow_nan=False)
names = st.from_regex(r"[a-z0-9._@-]{1,20}", fullmatch=True)
notes = st.text(st.characters(codec="utf-8").filter(str.isprintable) | st.sampled_from("\n\t\"'\\,;=#"), max_size=40)
values = st.sampled_from(
    [
        *fields.domains("a.com; www.b.com; .c.com; ü.example; [192.0.2.1]; .org"),
        *fields.addresses('x@a.com; "q;q"@b.com; "a b,c"@d.com; "q\\"q"@e.com; ü@ü.example; +tag@f.com'),
    ]
)


@st.composite
def entries(draw: st.DrawFn) -> Sender:
    """An authorized domain or sender in any state."""
    entry = draw(values)
    found: dict[str, Any] = {"created_at": draw(times)}
    if draw(st.booleans()):
        found |= {"verified": True, "provenance": draw(st.sampled_from(exchange.PROVENANCES)), "verified_at": draw(times)}
        found["verified_by"] = "".join(filter(str.isprintable, draw(notes)))
    return msgspec.structs.replace(entry, **found)


@st.composite
def users(draw: st.DrawFn) -> User:
    """A user as the database can have one."""
    senders = draw(st.lists(entries(), max_size=5, unique_by=lambda entry: (entry.kind, entry.value)))
    return exchange.ordered(
        User(
            draw(names),
            Secret(HASH),
            list=draw(st.sampled_from(["default", "news"])),
            active=draw(st.booleans()),
            note=draw(notes).strip(),
            allow_any=not senders,
            senders=tuple(senders),
            created_at=draw(times),
            scram=draw(st.sampled_from([None, Secret(SCRAM)])),
            settings=msgspec.structs.replace(draw(all_settings), per_list=None),
        )
    )


many = st.lists(users(), max_size=4, unique_by=lambda user: user.name)


@pytest.mark.parametrize("kind", FORMATS)
@settings(max_examples=50, deadline=None)
@given(many)
def test_round_trip(kind: Format, some: list[User]) -> None:
    """A12: what is written is read back equal, field for field, whatever the notes, addresses and settings hold."""
    assert files.read(files.write(some, [], kind).encode(), kind).users == some


@given(
    st.lists(
        st.builds(lists.UserList, name=names, note=notes.map(str.strip), settings=all_settings),
        max_size=3,
        unique_by=lambda each: each.name,
    )
)
def test_lists_round_trip(some: list[lists.UserList]) -> None:
    """A12, A32: TOML carries the lists and what they set."""
    assert files.read(files.write([], some, "toml").encode(), "toml").lists == some


@pytest.mark.parametrize("kind", FORMATS)
@settings(max_examples=15, deadline=None)
@given(some=many)
def test_through_two_databases(kind: Format, some: list[User], tmp_path_factory: pytest.TempPathFactory) -> None:
    """A12: export, import into another database, export again: the same text."""
    directory, texts = tmp_path_factory.mktemp("exchange"), list[str]()
    for number in range(2):
        url = f"sqlite:///{directory}/{number}.sqlite"
        migrate(url)
        engine = create_engine(url)
        with engine.begin() as connection:
            lists.add_list(connection, "news", now=1.0, note="n", settings=Settings(priority=4))
            bulk.add_users(connection, some if number == 0 else files.read(texts[0].encode(), kind).users, now=5e9)
            texts.append(files.write(store.list_users(connection), lists.list_lists(connection), kind))
        engine.dispose()
    assert texts[0] == texts[1]
    assert len(files.read(texts[0].encode(), kind).users) == len(some)


def test_written_by_hand() -> None:
    """A12, A14: a name and a domain are enough; everything else has the defaults of `user add`, and TOML's own types are fine."""
    text = """
        [[list]]
        name = "News"
        [list.settings]
        ceiling = 3
        [[user]]
        name = "App"
        list = "news"
        domains = "a.com; .b.com"
        [user.settings]
        priority = 2
        require_verified = false
        message_size = "10 MiB"
        alerts = ["ops@a.com", "it@b.com"]
        unauthorized = "alert"
        """
    found = files.read(text.encode(), "toml")
    settings = Settings("alert", False, 2, message_size=10 * 1024**2, alerts=("ops@a.com", "it@b.com"))
    assert found.users == [User("app", Secret(""), list="news", senders=tuple(fields.domains("a.com;.b.com")), settings=settings)]
    assert found.lists == [lists.UserList("news", settings=Settings(ceiling=3))]
    table = "\ufeffName;Domains;active\r\napp;.a.com;no\r\n\r\n"
    assert files.read(table.encode(), "csv").users == [User("app", Secret(""), active=False, senders=tuple(fields.domains(".a.com")))]


@pytest.mark.parametrize(
    ("kind", "text", "faults"),
    [
        ("toml", '[[user]]\nname = "a"\nallow_any = true\n[[user]]\nname = ', [(5, "this is no TOML")]),
        ("toml", "[[user]]\nname = 'a'\n\n[user.settings", [(4, "this is no TOML")]),
        ("toml", '[[user]]\nname = "a b"\nallow_any = true\n', [(2, '"a b" cannot be a user name')]),
        ("toml", '[[user]]\nnote = "x"\n', [(1, "the user has no name")]),
        ("toml", '[[user]]\nname = "a"\n\ndomains = "a.com,b.com"\n', [(4, 'has a comma; separate domains with ";"')]),
        ("toml", '[[user]]\nname = "a"\nsenders = "a.com"\n', [(3, "a whole domain is given with --domains")]),
        ("toml", '[[user]]\nname = "a"\n', [(2, "write allow_any if every one is meant")]),
        ("toml", '[[user]]\nname = "a"\nallow_any = true\ndomains = "a.com"\n', [(3, "contradict each other")]),
        ("toml", '[[user]]\nname = "a"\nallow_any = true\n[[user]]\nname = "A"\nallow_any = true\n', [(5, "twice, first on line 2")]),
        ("toml", '[[user]]\nname = "a"\nallow_any = true\npasswort = "x"\n', [(4, 'there is no field "passwort"')]),
        ("toml", '[[user]]\nname = "a"\nallow_any = true\npassword = "secret"\n', [(4, "is no argon2 hash")]),
        ("toml", '[[user]]\nname = "a"\nallow_any = true\nscram = "secret"\n', [(4, "no SCRAM-SHA-256 verifier")]),
        ("toml", '[[user]]\nname = "a"\nallow_any = true\n[user.settings]\npriority = 7\n', [(5, "7 is no priority")]),
        ("toml", '[[user]]\nname = "a"\nallow_any = true\n[user.settings]\ncolour = 7\n', [(5, 'there is no setting "colour"')]),
        ("toml", '[[user]]\nname = "a"\nallow_any = true\n[user.settings]\nper_list = "5/m"\n', [(5, 'there is no setting "per_list"')]),
        ("toml", '[[user]]\nname = "a"\nallow_any = true\nsettings = 5\n', [(4, "settings must be a table")]),
        ("toml", "[[user]]\nname = 5\nallow_any = true\n", [(2, '"name" must be a string, not 5: write name = "5"')]),
        (
            "toml",
            '[[user]]\nname = "a"\ndomains = ["a.com", "b.com"]\n',
            [(3, """"domains" must be a string, not ['a.com', 'b.com']: write domains = "a.com; b.com\"""")],
        ),
        ("toml", '[[user]]\nname = "a"\ndomains = "a.com"\n[user.entries]\n"b.com" = {}\n', [(4, '"b.com" is neither among')]),
        (
            "toml",
            '[[user]]\nname = "a"\ndomains = "a.com"\n[user.entries]\n"a.com" = { verified = true }\n',
            [(4, "must have a provenance")],
        ),
        ("toml", '[[user]]\nname = "a"\ndomains = "a.com"\n[user.entries]\n"a.com" = { verified = 5 }\n', [(4, "Expected `bool`")]),
        ("toml", '[user]\nname = "a"\n', [(1, "write [[user]] in two brackets")]),
        ("toml", 'hostname = "a"\n', [(1, '"hostname" means nothing here')]),
        ("toml", "[[list]]\nnote = 'x'\n", [(1, "the list has no name")]),
        ("toml", '[[list]]\nname = "a"\n[[list]]\nname = "a"\ncolour = 1\n', [(4, "twice, first on line 2"), (5, 'no field "colour"')]),
        ("csv", "name,domains\na,a.com\nb c,b.com\nd,\n", [(3, '"b c" cannot be a user name'), (4, "no domains and no senders")]),
        ("csv", 'name,note,domains\na,"two\nlines",a.com\nb,,"a.com,b.com"\n', [(4, "has a comma")]),
        ("csv", "name,domains\na,a.com,x\n", [(2, "the row has 3 columns, the first line names 2")]),
        ("csv", 'name,domains\na,"a.com\n', [(2, "this is no CSV")]),
        ("csv", 'name,domains\na,a.com\nb,b.com"x\n' + 'c,"b"x\n', [(3, "quotation mark"), (4, "this is no CSV")]),
        ("csv", "user,domains\na,a.com\n", [(1, 'must name the columns, "name" among them')]),
        ("csv", "name,colour\na,red\n", [(1, 'there is no column "colour"')]),
        ("csv", "name,name\na,b\n", [(1, "named twice")]),
        ("csv", "name,domains,priority,active\na,a.com,high,perhaps\n", [(2, '"high" is not a priority'), (2, "neither yes nor no")]),
        ("csv", "name,domains,entries,created_at\na,a.com,{,soon\n", [(2, "Expecting property name"), (2, "is no time in seconds")]),
    ],
)
def test_damaged(kind: Format, text: str, faults: list[tuple[int, str]]) -> None:
    """A12: every fault of a file is told, with its line and in the order of the file."""
    with pytest.raises(FileFaults) as damaged:
        files.read(text.encode(), kind)
    found = damaged.value.faults
    assert [line for line, _ in found] == [line for line, _ in faults], found
    for line, said in faults:
        assert any(at == line and said in sentence for at, sentence in found), found


@pytest.mark.parametrize("kind", FORMATS)
def test_text_that_is_no_text(kind: Format) -> None:
    """A12: octets that are no UTF-8 are told with their line."""
    with pytest.raises(FileFaults) as damaged:
        files.read(b"# 1\n# 2\nname\xff\n", kind)
    assert damaged.value.faults == [(3, "the line is no text in UTF-8")]


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode), st.sampled_from(FORMATS))
def test_any_octets(octets: bytes, kind: Format) -> None:
    """A12: whatever a file holds, it is read or refused with lines that it has; nothing else happens."""
    try:
        found = files.read(octets, kind)
    except FileFaults as damaged:
        assert all(1 <= line <= octets.count(b"\n") + octets.count(b"\r") + 1 for line, _ in damaged.faults)
    else:
        assert all(user.name in found.lines for user in found.users)


@pytest.mark.parametrize(
    ("text", "fine"),
    [
        (HASH, True),
        (passwords.DUMMY, True),
        ("$argon2i$v=19$m=4096,t=3,p=1$FwPg3Oe6xzcHDhAW2ezBdQ$5kYKvx4k++GetllGnATQWw4KSeSYwOJu4C0DcKUt7Mk", True),
        ("$argon2id$v=19$m=4194304,t=3,p=1$FwPg3Oe6xzcHDhAW2ezBdQ$5kYKvx4k++GetllGnATQWw4KSeSYwOJu4C0DcKUt7Mk", False),
        ("$argon2id$v=19$m=4096,t=1000,p=1$FwPg3Oe6xzcHDhAW2ezBdQ$5kYKvx4k++GetllGnATQWw4KSeSYwOJu4C0DcKUt7Mk", False),
        ("$2b$12$abcdefghijklmnopqrstuv", False),
        ("secret", False),
        ("", False),
    ],
)
def test_hashes_from_elsewhere(text: str, fine: bool) -> None:
    """A12: argon2 hashes of other programs are taken, but none that would let one login stop the server, and no plain passwords."""
    try:
        assert passwords.accepted(text) == text
    except ValueError:
        assert not fine
    else:
        assert fine


@pytest.fixture
def database(tmp_path: Path) -> Any:
    """An engine on a new database."""
    url = f"sqlite:///{tmp_path}/a.sqlite"
    migrate(url)
    engine = create_engine(url)
    yield engine
    engine.dispose()


def test_in_the_way(database: Any) -> None:
    """A12: who cannot be added is told before anything is written: names that are there, lists that are not."""
    with database.begin() as connection:
        store.add_user(connection, "there", HASH, now=1.0)
        new = [User("there", Secret(HASH)), User("new", Secret(HASH)), User("lost", Secret(HASH), list="news")]
        assert bulk.in_the_way(connection, new) == {
            "there": "the user there exists already; delete it first, or take it out of the file",
            "lost": "there is no list news; `smtpplus list add news` makes it",
        }
        assert bulk.in_the_way(connection, new[1:], [lists.UserList("news")]) == {}


def test_lists_that_are_there(database: Any) -> None:
    """A12, A32: a list that says something already stays as it is; one that says nothing is filled, and new ones are made."""
    with database.begin() as connection:
        lists.add_list(connection, "mine", now=1.0, settings=Settings(priority=1))
        before = store.read_generation(connection)
        given_ = [lists.UserList(name, "n", Settings(priority=5)) for name in ("default", "mine", "new")]
        assert bulk.add_lists(connection, given_, now=2.0) == ["default", "new"]
        assert {each.name: each.settings.priority for each in lists.list_lists(connection)} == {"default": 5, "mine": 1, "new": 5}
        assert store.read_generation(connection) != before


def test_grandfathered() -> None:
    """A12: what was not verified is, with provenance, date and who; what was verified before keeps its own."""
    verified = Sender("domain", "a.com", verified=True, provenance="dns", verified_at=1.0, verified_by="x")
    user = bulk.grandfathered(User("app", Secret(HASH), senders=(verified, Sender("domain", "b.com"))), now=5.0, by="root")
    assert user.senders == (verified, Sender("domain", "b.com", True, "grandfathered", 5.0, 0.0, "root"))


def test_nothing_is_told_that_is_not_set() -> None:
    """An exported user has only what differs from the defaults, so that the file stays readable."""
    written = files.write([User("app", Secret(HASH), allow_any=True, created_at=1.0)], [], "toml")
    assert list(tomllib.loads(written)["user"][0]) == ["name", "list", "active", "allow_any", "password", "created_at"]
    assert files.read(written.encode(), "toml").users[0].settings == UNSET


def toml(*lines: str) -> list[tuple[int, str]]:
    """The faults of a file with a user `app`, whose first line is 3."""
    with pytest.raises(FileFaults) as caught:
        files.read("\n".join(["[[user]]", 'name = "app"', *lines]).encode(), "toml")
    return caught.value.faults


@pytest.mark.parametrize(
    "at", ["inf", "-inf", "nan", "1e300", "-1.0", "253402300800", "9" * 400, "0x" + "f" * 9_000, "true", '"1e999"', "1979-05-27"]
)
def test_impossible_times_are_faults(at: str) -> None:
    """A12: a time that no calendar shows is told with its line, wherever it stands."""
    (fault,) = toml('domains = "a.com"', f"created_at = {at}")
    assert fault[0] == 4 and "no time in seconds since 1970" in fault[1]
    for name in ("created_at", "verified_at"):
        (fault,) = toml('domains = "a.com"', f'entries = {{ "a.com" = {{ {name} = {at} }} }}')
        assert fault[0] == 4


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        (["allow_any = true", "note = " + "9" * 5_000], "too large"),
        (["allow_any = true", "note = " + "[" * 100_000 + "]" * 100_000], "too deep"),
        (["allow_any = true", f"entries = '{'[' * 100_000}{']' * 100_000}'"], "too deep"),
        (["allow_any = true", f"entries = '{'9' * 5_000}'"], "digits"),
        (["allow_any = true", "note = 0x" + "f" * 9_000], "must be a string"),
        (["allow_any = true", "[user.settings]", "priority = 0x" + "f" * 9_000], "digits"),
        (['domains = ";"'], "has no domains and no senders"),
        (['domains = "a.com"', 'entries = { "a.com" = { verified_by = "\\u001b[2J" } }'], "control character"),
        (['domains = ".[192.0.2.1]"'], "subtree of an IP address"),
        (['domains = "xn--a.com"'], "internationalized"),
    ],
)
def test_what_cannot_be_read_is_a_sentence(lines: list[str], says: str) -> None:
    """A12: whatever a file holds, it is refused with sentences that show nothing but printable text."""
    faults = toml(*lines)
    assert len(faults) == 1 and says in faults[0][1] and faults[0][1].isprintable()


def test_an_empty_csv_is_a_fault() -> None:
    """A12: a file that names no columns is damaged, not a list of nobody."""
    for octets in (b"", b"\n\n"):
        with pytest.raises(FileFaults, match="first line must name the columns"):
            files.read(octets, "csv")


def test_internationalized_names_in_use_are_domains() -> None:
    """RFC 3492: A-labels that stand for something pass, those of IDNA 2003 among them."""
    assert [str(entry) for entry in fields.domains("xn--bcher-kva.example; .xn--i-7iq.ws")] == ["xn--bcher-kva.example", ".xn--i-7iq.ws"]
