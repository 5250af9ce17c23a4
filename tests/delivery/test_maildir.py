"""Delivery into Maildirs: files as mail readers expect them, and nothing half written."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpplus.config.values import PLACEHOLDERS
from smtpplus.delivery.maildir import mailbox_path
from smtpplus.mail.disposition import Request
from smtpplus.mail.envelope import Recipient, WholeContent
from tests.delivery.rig import DeliveryCase, Pieces, Underway, cut, request, said


def messages(folder: Path) -> list[bytes]:
    return sorted(path.read_bytes() for path in (folder / "new").iterdir())


class MaildirTests(DeliveryCase):
    async def test_a_message_becomes_a_file(self) -> None:
        """One file in new per recipient, with Return-Path and Delivered-To in front, LF line ends, readable by its owner alone."""
        folder = self.folder() / "mail"
        delivery = self.make(("*", f"maildir:{folder}"))
        content = WholeContent(b"Subject: x\r\n\r\n.dot\r\nbare\rcr\r\n")
        found = await self.send(delivery, request(f"maildir:{folder}", "a@x", "b@x", content=content))
        assert said(found) == [("a@x", 250, "delivered"), ("b@x", 250, "delivered")]
        assert found[0].peer == f"maildir:{folder}"
        assert messages(folder) == [
            b"Return-Path: <ann@a.example>\nDelivered-To: %s\nSubject: x\n\n.dot\nbare\rcr\n" % address for address in (b"a@x", b"b@x")
        ]
        assert list((folder / "tmp").iterdir()) == []
        assert {stat.S_IMODE(path.stat().st_mode) for path in (folder / "new").iterdir()} == {0o600}

    async def test_line_ends_at_piece_boundaries(self) -> None:
        """CRLF becomes LF wherever the pieces are cut, also for several recipients."""
        octets = b"Subject: x\r\n\r\na\r\n\r\n\rb\n\r\nlast\r"
        folder = self.folder()
        delivery = self.make(("*", f"maildir:{folder}"))
        for size in range(1, 9):
            await self.send(delivery, request(f"maildir:{folder}", "a@x", "b@x", content=Pieces(cut(octets, size), slow=size % 2 == 0)))
        found = {message.partition(b"Subject")[2] for message in messages(folder)}
        assert (len(messages(folder)), found) == (16, {octets.replace(b"\r\n", b"\n").partition(b"Subject")[2]})

    async def test_many_messages_at_once(self) -> None:
        """Every message of a crowd gets a file of its own."""
        folder = self.folder()
        delivery = self.make(("*", f"maildir:{folder}"))
        crowd = [Underway(delivery, request(f"maildir:{folder}", content=WholeContent(b"\r\n%d\r\n" % number))) for number in range(200)]
        for underway in crowd:
            assert said(await underway.ended) == [("bob@b.example", 250, "delivered")]
        assert len(set(messages(folder))) == 200

    async def test_a_folder_that_cannot_be_made_defers(self) -> None:
        """What the file system refuses is tried again, and says why."""
        folder = self.folder()
        folder.write_text("not a directory")
        delivery = self.make(("*", f"maildir:{folder}"))
        [disposition] = await self.send(delivery, request(f"maildir:{folder}"))
        assert (disposition.reply.code, disposition.reason) == (451, "maildir_failed")
        assert "Not a directory" in disposition.reply.text

    async def test_content_that_is_lost_leaves_nothing(self) -> None:
        """A message whose pieces cannot all be read leaves no file, neither in new nor in tmp."""
        folder = self.folder()
        delivery = self.make(("*", f"maildir:{folder}"))
        found = await self.send(delivery, request(f"maildir:{folder}", content=Pieces([b"a", b"b", b"c"], lost=2)))
        assert said(found) == [("bob@b.example", 451, "content_lost")]
        await self.until(lambda: list((folder / "tmp").iterdir()) == [])
        assert messages(folder) == []

    async def test_stop_go_and_abandon(self) -> None:
        """A stopped delivery writes nothing more until go; an abandoned one leaves nothing; after the last piece stop says no."""
        folder = self.folder()
        delivery = self.make(("*", f"maildir:{folder}"))
        wanted = request(f"maildir:{folder}", content=Pieces([b"a", b"b\r\n"], slow=True))
        stopped = Underway(delivery, wanted)
        assert stopped.transfer.stop()
        abandoned = Underway(delivery, wanted)
        abandoned.transfer.stop()
        await self.turn(0.1)
        assert stopped.calls == 0
        abandoned.transfer.abandon()
        assert said(await abandoned.ended) == [("bob@b.example", 451, "abandoned")]
        stopped.transfer.go()
        assert said(await stopped.ended) == [("bob@b.example", 250, "delivered")]
        assert not stopped.transfer.stop()
        await self.until(lambda: list((folder / "tmp").iterdir()) == [])
        assert len(messages(folder)) == 1

    async def test_folders_by_recipient(self) -> None:
        """Placeholders in the path give each recipient a Maildir; who cannot be named is refused for good, the others arrive."""
        root = self.folder()
        via = f"maildir:{root}/{{domain}}/{{user}}"
        delivery = self.make(("*", via))
        wanted: Request = request(via, "Ann@A.example", "../x@b.example", f"{'l' * 230}@b.example")
        dispositions = await self.send(delivery, wanted)
        found = said(dispositions)
        assert [(code, reason) for _, code, reason in found] == [(250, "delivered")] * 2 + [(550, "no_maildir")]
        assert str(dispositions[2].reply).startswith("550 5.1.1 There can be no mailbox for this recipient: 'lllll")
        assert sorted(str(path.relative_to(root)) for path in root.glob("*/*")) == ["a.example/ann", "b.example/%2E.%2Fx"]

    async def test_a_path_that_is_too_long_is_final(self) -> None:
        """A path that is too long by the recipient's name is refused for good; one that is so by itself is the operator's to mend."""
        deep = self.folder()
        while len(str(deep)) < 3900:
            deep /= "d" * 180
        for pattern, reason in (("{user}/{user}", "no_maildir"), (f"{'e' * 180}/{'f' * 180}", "maildir_failed")):
            via = f"maildir:{deep}/{pattern}"
            found = said(await self.send(self.make(("*", via)), request(via, f"{'l' * 150}@b.example")))
            assert [each for _, _, each in found] == [reason]


@pytest.mark.parametrize(
    ("address", "path"),
    [
        ("Bob@B.Example", "/m/b.example/bob/bob@b.example"),
        ('"a/../b"@x', '/m/x/"a%2F..%2Fb"/"a%2F..%2Fb"@x'),
        ("%2F@x", "/m/x/%252f/%252f@x"),
    ],
)
def test_paths_by_recipient(address: str, path: str) -> None:
    """Placeholders are replaced by the recipient in lower case, with what could leave the folder written as %XX."""
    assert mailbox_path("/m/{domain}/{user}/{recipient}", address) == Path(path)


def test_every_placeholder_of_the_configuration_is_one_here() -> None:
    """What the configuration takes for a placeholder is replaced."""
    assert [str(mailbox_path(f"/m/{name}", "x@a.com")) for name in PLACEHOLDERS] == ["/m/x@a.com", "/m/x", "/m/a.com"]


def test_an_address_without_domain_has_no_domain_folder() -> None:
    """postmaster alone has a user's folder, and none where the domain names it."""
    assert mailbox_path("/m/{user}", "Postmaster") == Path("/m/postmaster")
    with pytest.raises(ValueError, match="cannot be the name"):
        mailbox_path("/m/{domain}", "postmaster")


@given(st.text(min_size=1, max_size=60), st.text(min_size=1, max_size=60))
def test_no_recipient_leaves_the_folder(one: str, other: str) -> None:
    """Whatever the local part, the path stays one level below its folder, and two users never share one."""
    found = []
    for user in (one.lower(), other.lower()):
        try:
            path = mailbox_path("/mail/{user}", Recipient(f"{user}@x").address)
        except (ValueError, UnicodeError):
            return
        assert path.parent == Path("/mail")
        assert not path.name.startswith(".")
        assert "\x00" not in path.name
        found.append((user, path))
    if one.isascii() and other.isascii():  # outside ASCII, different spellings of one name are one name
        assert (found[0][0] == found[1][0]) == (found[0][1] == found[1][1])
