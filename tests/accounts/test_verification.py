"""Verification on a real SQLite file: tokens count once and in their time, records count for their list, and every change is noticed."""

from __future__ import annotations

from pathlib import Path
from typing import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Connection, Engine

from smtpplus.accounts import fields, lists, store, verification
from smtpplus.accounts.fields import AccountError, FieldError
from smtpplus.accounts.user import Sender, User
from smtpplus.accounts.verification import MARK, REMEMBERED, TokenRefused
from smtpplus.storage.engine import create_engine, migrate

DAY = 86_400.0
NOW = 1_000_000_000.0
ANN = Sender("address", "ann@a.com")


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    """A database with the schema of the migrations."""
    url = f"sqlite:///{tmp_path}/smtpplus.sqlite"
    migrate(url)
    engine = create_engine(url)
    yield engine
    engine.dispose()


@pytest.fixture
def connection(engine: Engine) -> Iterator[Connection]:
    """A connection in a transaction."""
    with engine.begin() as connection:
        yield connection


def add(connection: Connection, name: str = "app", senders: str = "ann@a.com; .b.com; c.com", *, list: str = "default") -> User:
    """A user with these entries, pending, made at NOW."""
    entries = fields.entries(senders)
    return store.add_user(
        connection,
        name,
        "hash",
        now=NOW,
        list=list,
        domains=[entry for entry in entries if entry.kind != "address"],
        addresses=[entry for entry in entries if entry.kind == "address"],
    )


def issue(connection: Connection, user: User, *, now: float = NOW, entry: Sender = ANN) -> str:
    return verification.issue(connection, user, entry, now=now, lifetime=3 * DAY, by="root at the command line")


def why(connection: Connection, token: str, *, now: float = NOW) -> str:
    """What a token is refused with, by `look_up` and by `confirm` alike; the remedy is always a command, or that none is needed."""
    refusals = []
    for use in (lambda: verification.look_up(connection, token, now=now), lambda: verification.confirm(connection, token, now=now, by="x")):
        with pytest.raises(TokenRefused) as refused:
            use()
        refusals.append(refused.value)
    assert str(refusals[0]) == str(refusals[1])
    assert "`smtpplus sender " in str(refusals[0]) or "nothing is left to do" in str(refusals[0])
    assert "smtpplus" not in refusals[0].sentence
    return refusals[0].why


def state(user: User) -> dict[str, bool]:
    return {str(entry): entry.verified for entry in user.senders}


def test_token_verifies_its_entry_and_no_other(connection: Connection) -> None:
    """A9: a token shown to look_up changes nothing; confirmed, its address is verified, with provenance, date and who."""
    user = add(connection)
    token = issue(connection, user)
    assert verification.look_up(connection, token, now=NOW + DAY).entry.value == "ann@a.com"
    assert state(store.get_user(connection, "app")) == {".b.com": False, "c.com": False, "ann@a.com": False}
    claim = verification.confirm(connection, token, now=NOW + DAY, by="web 192.0.2.1")
    assert (claim.entry.verified, claim.entry.provenance, claim.entry.verified_at, claim.entry.verified_by) == (
        True,
        "token",
        NOW + DAY,
        "web 192.0.2.1",
    )
    assert state(store.get_user(connection, "app")) == {".b.com": False, "c.com": False, "ann@a.com": True}


def test_tokens_are_long_and_stored_as_hashes(engine: Engine, tmp_path: Path) -> None:
    """A9: a token has 130 bits of randomness, never comes twice, and the database holds no trace of it."""
    with engine.begin() as connection:
        user = add(connection)
        tokens = {issue(connection, user) for _ in range(50)}
        claims = [verification.look_up(connection, token, now=NOW) for token in tokens]
    assert (len(tokens), {len(token) for token in tokens}, len(claims)) == (50, {26}, 50)
    engine.dispose()
    octets = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert not any(token.encode() in octets for token in tokens)


def test_wrong_expired_and_used_tokens_each_have_their_sentence(connection: Connection) -> None:
    """A9: an unknown token, one past its time (to the second), and one that was used are refused, each for its own reason."""
    user = add(connection)
    assert why(connection, "0" * 26) == "unknown"
    assert why(connection, "") == "unknown"
    late = issue(connection, user)
    assert verification.look_up(connection, late, now=NOW + 3 * DAY - 1).entry.value == "ann@a.com"
    assert why(connection, late, now=NOW + 3 * DAY) == "expired"
    token = issue(connection, user)
    verification.confirm(connection, token, now=NOW, by="x")
    assert why(connection, token) == "used"
    assert why(connection, token, now=NOW + 9 * DAY) == "used"


def test_token_that_is_used_uses_up_the_others_of_its_entry(connection: Connection) -> None:
    """A9: several mails may be under way; one click settles the entry, and a stolen older mail is worth nothing then."""
    user = add(connection, senders="ann@a.com; bob@a.com")
    first, second, other = issue(connection, user), issue(connection, user), issue(connection, user, entry=Sender("address", "bob@a.com"))
    verification.confirm(connection, second, now=NOW, by="x")
    assert why(connection, first) == "used"
    verification.confirm(connection, other, now=NOW, by="x")


def test_revocation_reaches_tokens_under_way(connection: Connection) -> None:
    """D6: what is revoked is pending again, its open tokens count no longer, and it can be verified anew."""
    user = add(connection)
    used, open_ = issue(connection, user), issue(connection, user, entry=ANN)
    verification.confirm(connection, used, now=NOW, by="x")
    later = issue(connection, user)
    (entry,) = verification.of_user(verification.revoke(connection, user, [ANN], now=NOW), [ANN])
    assert (entry.verified, entry.provenance, entry.verified_at, entry.verified_by) == (False, "", None, "")
    assert [why(connection, token) for token in (used, open_, later)] == ["used", "used", "revoked"]
    renewed = verification.confirm(connection, issue(connection, user, now=NOW + DAY), now=NOW + DAY, by="y")
    assert (renewed.entry.verified, renewed.entry.verified_by) == (True, "y")


def test_token_of_an_entry_that_went_away_counts_no_longer(connection: Connection) -> None:
    """A9: a token is for the entry it was made for: not after its removal, not for one of the same name made later, not for nobody."""
    user = add(connection)
    token = issue(connection, user)
    verification.remove(connection, user, [ANN], allow_any=False, now=NOW + 1)
    assert why(connection, token) == "gone"
    verification.add(connection, store.get_user(connection, "app"), [ANN], now=NOW + 2)
    assert why(connection, token) == "gone"
    store.delete_user(connection, "app")
    assert why(connection, token) == "unknown"


@pytest.mark.parametrize("written", ["{} ", "\t{}\n", "{}".upper()])
def test_copied_tokens_are_read_kindly(connection: Connection, written: str) -> None:
    """A9: blanks around a token and capitals in it, as copying makes them, do no harm."""
    token = issue(connection, add(connection))
    assert verification.confirm(connection, written.format(token), now=NOW, by="x").entry.verified
    assert why(connection, token.upper()) == "used"


def test_old_tokens_are_forgotten(connection: Connection) -> None:
    """The table does not grow for ever: a month after its end a token is not told from an unknown one."""
    user = add(connection)
    token = issue(connection, user)
    issue(connection, user, now=NOW + 3 * DAY + REMEMBERED)
    assert why(connection, token, now=NOW + 3 * DAY + REMEMBERED) == "expired"
    issue(connection, user, now=NOW + 3 * DAY + REMEMBERED + 1)
    assert why(connection, token, now=NOW + 3 * DAY + REMEMBERED + 1) == "unknown"


def test_record_is_bound_to_the_list(connection: Connection) -> None:
    """A9: users of one list are asked for one record, those of another list for another; a new list of an old name for a new one."""
    lists.add_list(connection, "mine", now=NOW)
    one, two, rival = add(connection, "one", list="mine"), add(connection, "two", list="mine"), add(connection, "rival")
    entry = Sender("domain", "c.com")
    mine = verification.challenge(connection, one, entry, now=NOW)
    assert verification.challenge(connection, two, entry, now=NOW + DAY) == mine
    assert verification.challenge(connection, one, Sender("subtree", "c.com"), now=NOW) == mine
    others = {
        verification.challenge(connection, rival, entry, now=NOW),
        verification.challenge(connection, one, Sender("domain", "d.com"), now=NOW),
    }
    lists.delete_list(connection, "mine", now=NOW, move_to="default")
    lists.add_list(connection, "mine", now=NOW)
    others.add(verification.challenge(connection, one, entry, now=NOW))
    assert len(others | {mine}) == 4


def test_record_name(connection: Connection) -> None:
    """A9: the record stands at `_smtpplus.` and the domain, for its subtree too; an address literal has none, and the remedy is said."""
    assert verification.record_name(Sender("domain", "b.com")) == "_smtpplus.b.com"
    assert verification.record_name(Sender("subtree", "b.com")) == "_smtpplus.b.com"
    with pytest.raises(AccountError, match="sender vouch"):
        verification.record_name(Sender("domain", "[192.0.2.1]"))


@pytest.mark.parametrize(
    ("texts", "answer"),
    [
        ([], "absent"),
        (["v=spf1 -all", ""], "absent"),
        ([f"{MARK}right"], "proved"),
        (["v=spf1 -all", f"{MARK}wrong", f" {MARK}right "], "proved"),
        ([f"{MARK}wrong"], "foreign"),
        ([f"{MARK}right2"], "foreign"),
        ([MARK], "foreign"),
        ([f"x{MARK}right"], "absent"),
    ],
)
def test_judge(texts: list[str], answer: str) -> None:
    """A9: only the whole value proves; other records at the name do no harm; other servers' values are told from none at all."""
    assert verification.judge(texts, f"{MARK}right") == answer


@given(st.lists(st.text(), max_size=5))
def test_judge_takes_any_text(texts: list[str]) -> None:
    """What strangers publish proves nothing unless it is the value."""
    assert verification.judge(texts, f"{MARK}0123456789abcdefghjkmnpqrs") in {"absent", "foreign"}


def test_every_change_is_noticed(connection: Connection) -> None:
    """The daemon sees generation and fingerprint: each change of a verification raises both, looking raises neither."""
    user = add(connection)
    token = issue(connection, user)

    def seen() -> tuple[int, store.Fingerprint]:
        return store.read_generation(connection), store.fingerprints(connection, ["app"])["app"]

    before = seen()
    verification.look_up(connection, token, now=NOW)
    verification.challenge(connection, user, Sender("domain", "c.com"), now=NOW)
    assert seen() == before
    chosen = [Sender("domain", "c.com")]
    for change in (
        lambda: verification.confirm(connection, token, now=NOW, by="x"),
        lambda: verification.verified(connection, store.get_user(connection, "app"), chosen, "dns", now=NOW, by="x"),
        lambda: verification.revoke(connection, store.get_user(connection, "app"), chosen, now=NOW),
        lambda: verification.add(connection, store.get_user(connection, "app"), [Sender("domain", "n.com")], now=NOW),
        lambda: verification.remove(connection, store.get_user(connection, "app"), chosen, allow_any=False, now=NOW),
    ):
        change()
        after = seen()
        assert after[0] > before[0]
        assert after[1] != before[1]
        before = after


def test_adding_keeps_what_is_there(connection: Connection) -> None:
    """A10: an added entry is pending; what the user had stays, verified or not, also if it is added again."""
    user = verification.verified(connection, add(connection), [ANN], "token", now=NOW, by="x")
    changed = verification.add(connection, user, fields.entries("ann@a.com; new@a.com; d.com"), now=NOW + 1)
    assert state(changed) == {".b.com": False, "c.com": False, "ann@a.com": True, "d.com": False, "new@a.com": False}


def test_the_last_entry_asks_for_consent(connection: Connection) -> None:
    """A18: removing the last entry needs --allow-any; where entries are left, --allow-any is a mistake; a stranger's entry is one too."""
    user = add(connection)
    with pytest.raises(AccountError, match="--allow-any"):
        verification.remove(connection, user, user.senders, allow_any=False, now=NOW)
    with pytest.raises(AccountError, match="says nothing"):
        verification.remove(connection, user, [ANN], allow_any=True, now=NOW)
    with pytest.raises(AccountError, match=r"user app has no sender z\.com"):
        verification.remove(connection, user, fields.entries("ann@a.com; z.com"), allow_any=False, now=NOW)
    assert len(store.get_user(connection, "app").senders) == 3
    left = verification.remove(connection, user, user.senders, allow_any=True, now=NOW)
    assert (left.senders, left.allow_any) == ((), True)


def test_one_name_finds_its_user(connection: Connection) -> None:
    """A9: `sender verify a@b` alone finds the one user who has it; none and several are sentences that say what to write."""
    add(connection, "one", "ann@a.com; c.com")
    add(connection, "two", "c.com")
    assert verification.only_user(connection, ANN).name == "one"
    with pytest.raises(AccountError, match="several users"):
        verification.only_user(connection, Sender("domain", "c.com"))
    with pytest.raises(AccountError, match=r"sender add --verify USER z\.com"):
        verification.only_user(connection, Sender("domain", "z.com"))


def test_entries_as_people_write_them() -> None:
    """A14, A17: addresses, domains and subtrees mix, doubles are dropped, and mistakes have the sentences of the fields."""
    found = verification.entries(["X@A.com; b.com", ".c.com", "b.com"])
    assert [(entry.kind, entry.value) for entry in found] == [("address", "x@a.com"), ("domain", "b.com"), ("subtree", "c.com")]
    for texts, said in (
        (["a.com,b.com"], "comma"),
        (["@b.com"], 'write "b.com"'),
        ([""], "no address and no domain"),
        (["a b.com"], "blank"),
    ):
        with pytest.raises(FieldError, match=said):
            verification.entries(texts)
