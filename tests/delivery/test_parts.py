"""More recipients than a peer takes at a time: one transaction behind the other, in one attempt, and each recipient hears once."""

from __future__ import annotations

import random
import re
import threading
from collections import Counter

from twisted.internet.defer import Deferred

from smtpplus.delivery.dialogue import RECIPIENTS
from smtpplus.mail.disposition import Disposition
from tests.delivery.peer import EHLO, Line, Peer, Script
from tests.delivery.rig import SMALL, DeliveryCase, Underway, request, said

RCPT = re.compile(rb"RCPT TO:<(.+?)>")
TAKEN = 250, "delivered"


def limited(limits: str) -> str:
    """What a peer offers that has such limits (RFC 9422)."""
    return EHLO.replace("250-SIZE", f"250-LIMITS {limits}\r\n250-SIZE")


def taking(*sizes: int, ehlo: str = EHLO) -> Script:
    """A peer that takes transactions with so many recipients."""

    def script(line: Line) -> None:
        line.greet(ehlo)
        for size in sizes:
            line.message("250 2.0.0 taken", *["250 ok"] * size)
        line.gone()

    return script


class Moody:
    """A peer that answers by chance. `has` counts who has the message, `asked` the transactions."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.has: Counter[str] = Counter()
        self.asked = 0

    def __call__(self, line: Line) -> None:
        pipelining = self.random.random() < 0.7
        ehlo = EHLO if pipelining else EHLO.replace("250-PIPELINING\r\n", "")
        line.greet(self.random.choice((ehlo, limited("RCPTMAX=2") if pipelining else ehlo)))
        while self.step(line, line.until(b"\r\n").decode()):
            pass

    def step(self, line: Line, command: str) -> bool:
        """Answer a command. False: the connection is over."""
        chance = self.random.random
        verb = command[:4]
        if verb == "MAIL":
            self.asked += 1
            self.taken: list[str] = []
            self.known = chance() < 0.9
            line.send("250 ok\r\n" if self.known else "450 4.1.8 who?\r\n")
        elif verb == "RCPT":
            answers = "250 ok", "250 ok", "550 5.1.1 no", "450 4.2.1 no", "452 4.5.3 enough", "552 too many"
            answer = self.random.choice(answers) if self.known else "503 5.5.1 mail first"
            self.taken += [command[9:-3]] if answer == "250 ok" else []
            line.send(f"{answer}\r\n")
        elif verb == "DATA" and (not self.taken or chance() < 0.1):
            line.send("503 5.5.1 nobody\r\n" if not self.taken else "451 4.3.0 no\r\n")
        elif verb == "DATA":
            line.send("354 go\r\n")
            line.until(b"\r\n.\r\n")
            answer = self.random.choice(("250 2.0.0 taken",) * 6 + ("554 5.6.0 spam", "451 4.3.0 no", "421 4.3.2 bye"))
            self.has.update(self.taken if answer.startswith("250") else ())
            line.send(f"{answer}\r\n")
            return chance() < 0.9 and not answer.startswith("421")
        else:
            line.send("221 bye\r\n" if verb == "QUIT" else "250 ok\r\n")
        return verb != "QUIT"


class PartsTests(DeliveryCase):
    async def test_whatever_a_peer_says_each_recipient_is_told_what_is_true(self) -> None:
        """One disposition for each recipient, between parts or at the end; delivered are those, and those alone, who have the message, and
        they have it once; and the peer is not asked more often than there are recipients to settle."""
        between = 0
        for seed in range(40):
            moody = Moody(seed)
            with Peer(moody) as peer:
                delivery = self.make(("*", peer.via))
                addresses = [f"{number}@x" for number in range(seed % 7 + 1)]
                told: list[Disposition] = []
                ended: Deferred[list[Disposition]] = Deferred()
                delivery.deliver(request(peer.via, *addresses), ended.callback, told.extend)
                found = await ended
                between += len(told)
                assert found
                assert {each.reply.code for each in told} <= {250}
                found = told + found
                await delivery.stop()
            assert sorted(each.recipient.address for each in found) == addresses
            assert moody.has == Counter(each.recipient.address for each in found if each.reply.code == 250), seed
            assert moody.asked <= 2 * len(addresses), seed
        assert between > 10

    async def found(self, *scripts: Script, to: str = "abcde", messages: int = 100) -> dict[str, tuple[int, str]]:
        """What is said of a message to these; an address without a domain is at x. `self.parts` are the transactions of each connection."""
        addresses = [each if "@" in each else f"{each}@x" for each in (to.split() if " " in to else to)]
        with Peer(*scripts) as peer:
            delivery = self.make(("*", peer.via), messages=messages)
            found = await self.send(delivery, request(peer.via, *addresses))
            await delivery.stop()
        transactions = [bytes(line.received).split(b"MAIL FROM")[1:] for line in peer.lines]
        self.parts = [["".join(name.decode().partition("@")[0] for name in RCPT.findall(each)) for each in line] for line in transactions]
        assert [each.recipient.address for each in found] == addresses
        return {each.recipient.address.removesuffix("@x"): (each.reply.code, each.reason) for each in found}

    async def test_as_many_as_the_peer_takes(self) -> None:
        """RFC 9422 §4: RCPTMAX and RCPTDOMAINMAX of a peer are kept, in transactions one behind the other on one connection."""
        assert await self.found(taking(2, 2, 1, ehlo=limited("RCPTMAX=2"))) == dict.fromkeys("abcde", TAKEN)
        assert self.parts == [["ab", "cd", "e"]]
        await self.found(taking(2, 1, 2, ehlo=limited("RCPTMAX=9 RCPTDOMAINMAX=1")), to="a@x b@X c@y d@x e@x")
        assert self.parts == [["ab", "c", "de"]]
        await self.found(taking(3, 2, ehlo=limited("RCPTDOMAINMAX=2 RCPTMAX=4")), to="a@x b@y c@y d@z e@y")
        assert self.parts == [["abc", "de"]]

    async def test_a_peer_that_does_not_say_has_a_hundred(self) -> None:
        """RFC 5321 §4.5.3.1.8: every server takes 100 recipients, so nobody is asked to take more; one that says more gets more."""
        many = " ".join(f"r{number}" for number in range(RECIPIENTS + 20))
        assert set((await self.found(taking(RECIPIENTS, 20), to=many)).values()) == {TAKEN}
        assert set((await self.found(taking(RECIPIENTS + 20, ehlo=limited("RCPTMAX=1000")), to=many)).values()) == {TAKEN}

    async def test_a_peer_that_says_enough_has_the_rest_at_once(self) -> None:
        """RFC 5321 §4.5.3.1.10: after 452 (or 552) for too many the rest goes at once, in the next transaction of this attempt."""

        def script(line: Line) -> None:
            line.greet()
            line.message("250 ok", "250 ok", "550 5.1.1 no", "452 4.5.3 enough", "452 4.5.3 enough", "452 4.5.3 enough")
            line.message("250 ok", "250 ok", "552 5.5.3 Too many recipients", "452 too many")
            line.message("250 ok", "450 4.7.1 later", "250 ok")
            line.gone()

        assert await self.found(script) == {"a": TAKEN, "b": (550, "peer_refused"), "c": TAKEN, "d": (450, "peer_deferred"), "e": TAKEN}
        assert self.parts == [["abcde", "cde", "de"]]

    async def test_parts_go_in_chunks_too(self) -> None:
        """RFC 3030: each part is MAIL, RCPT and BDAT with the whole content; 452 for too many puts recipients off as before DATA."""
        parts: list[bytes] = []

        def script(line: Line) -> None:
            line.greet(EHLO.replace("250-SIZE", "250-CHUNKING\r\n250-SIZE"))
            for replies in ("250 ok\r\n452 4.5.3 enough\r\n452 4.5.3 enough\r\n", "250 ok\r\n250 ok\r\n"):
                line.command("MAIL")
                for _ in range(replies.count("\r\n")):
                    line.command("RCPT")
                line.send("250 ok\r\n" + replies)
                parts.append(line.until(b"LAST\r\n") + line.until(b"A line.\r\n"))
                line.send("250 2.0.0 taken\r\n")
            line.gone()

        assert await self.found(script, to="abc") == dict.fromkeys("abc", TAKEN)
        assert parts == [b"BDAT %d LAST\r\n%b" % (len(SMALL), SMALL)] * 2

    async def test_a_mailbox_that_is_full_is_not_put_off(self) -> None:
        """452 4.2.2 is about a mailbox: it waits for the next attempt; 552 5.2.2 is final."""

        def script(line: Line) -> None:
            line.greet()
            line.message("250 ok", "250 ok", "452 4.2.2 mailbox full", "552 5.2.2 mailbox full")
            line.gone()

        assert await self.found(script, to="abc") == {"a": TAKEN, "b": (452, "peer_deferred"), "c": (552, "peer_refused")}

    async def test_a_peer_that_takes_nobody_is_not_asked_again(self) -> None:
        """Each transaction settles somebody, or it is the last: who is too many even as the first waits, and so do those behind."""

        def script(line: Line) -> None:
            line.greet(limited("RCPTMAX=2"))
            line.message("250 ok", "250 ok", "250 ok")
            line.command("MAIL")
            line.until(b"DATA\r\n")
            line.send("250 ok\r\n452 4.5.3 enough\r\n452 4.5.3 enough\r\n503 nobody\r\n")
            line.gone()

        assert await self.found(script) == {**dict.fromkeys("ab", TAKEN), **dict.fromkeys("cde", (452, "peer_deferred"))}
        assert self.parts == [["ab", "cd"]]

    async def test_a_message_refused_is_refused_for_all(self) -> None:
        """What the peer says of the message holds for those who were not proposed: sending it again would change nothing."""

        def dotted(line: Line) -> None:
            line.greet(limited("RCPTMAX=2"))
            line.message("250 ok", "250 ok", "550 5.1.1 no")
            line.message("554 5.6.0 spam", "250 ok", "250 ok")
            line.gone()

        spam = dict.fromkeys("cde", (554, "peer_refused"))
        assert await self.found(dotted) == {"a": TAKEN, "b": (550, "peer_refused"), **spam}
        assert self.parts == [["ab", "cd"]]

        def sender(line: Line) -> None:
            line.greet(limited("RCPTMAX=1"))
            line.until(b"DATA\r\n")
            line.send("450 4.1.8 who?\r\n503 mail first\r\n503 mail first\r\n")
            line.gone()

        assert await self.found(sender, to="ab") == dict.fromkeys("ab", (450, "peer_deferred"))
        assert self.parts == [["a"]]

    async def test_a_part_that_is_refused_does_not_stop_the_next(self) -> None:
        """Recipients who are all refused, and the DATA that fails for want of any, say nothing of those behind them."""

        def script(line: Line) -> None:
            line.greet(limited("RCPTMAX=1"))
            line.until(b"DATA\r\n")
            line.send("250 ok\r\n550 5.1.1 no\r\n554 5.5.1 no recipients\r\n")
            line.command("RSET")
            line.send("250 ok\r\n")
            line.envelope("550 5.1.1 nor this")
            assert line.until(b"\r\n") == b".\r\n"
            line.send("554 5.5.1 no recipients\r\n")
            line.message()
            line.gone()

        assert await self.found(script, to="abc") == {**dict.fromkeys("ab", (550, "peer_refused")), "c": TAKEN}
        assert self.parts == [["a", "b", "c"]]

    async def test_the_transactions_of_a_connection_are_counted(self) -> None:
        """`messages_per_connection` counts parts, and the rest goes over the next connection; so it does when the peer closes."""
        assert await self.found(
            taking(1, 1, ehlo=limited("RCPTMAX=1")), taking(1, ehlo=limited("RCPTMAX=1")), to="abc", messages=2
        ) == dict.fromkeys("abc", TAKEN)
        assert self.parts == [["a", "b"], ["c"]]

        def closes(line: Line) -> None:
            line.greet(limited("RCPTMAX=1"))
            line.message()

        assert await self.found(closes, taking(2), to="abc") == dict.fromkeys("abc", TAKEN)
        assert self.parts[-1] == ["bc"]

    async def test_who_has_the_message_is_not_sent_it_again(self) -> None:
        """A connection that is lost in the second part leaves the first delivered and defers the rest."""

        def script(line: Line) -> None:
            line.greet(limited("RCPTMAX=2"))
            line.message("250 ok", "250 ok", "250 ok")
            line.envelope("250 ok", "250 ok")
            line.until(b"Subject")

        lost = dict.fromkeys("cde", (451, "connection_lost"))
        assert await self.found(script) == {**dict.fromkeys("ab", TAKEN), **lost}

    async def test_urgent_mail_goes_between_two_parts(self) -> None:
        """A27: an urgent message takes over the only connection at the boundary of a transaction; then the rest goes on."""
        answer = threading.Event()

        def first(line: Line) -> None:
            line.greet(limited("RCPTMAX=1"))
            line.envelope()
            line.until(b"\r\n.\r\n")
            answer.wait(20)
            line.send("250 ok\r\n")
            line.message()
            line.message()
            line.gone()

        with Peer(first, lambda line: line.send("421 4.7.0 one is enough\r\n")) as peer:
            delivery = self.make(("*", peer.via))
            bulk = Underway(delivery, request(peer.via, "a@x", "b@x", level=5))
            await self.until(lambda: peer.lines and peer.lines[0].received.endswith(b"\r\n.\r\n"))
            urgent = Underway(delivery, request(peer.via, "u@x", level=1))
            await self.until(lambda: len(peer.lines) == 2)
            await self.turn(0.1)
            answer.set()
            dispositions: list[Disposition] = [*await urgent.ended, *await bulk.ended]
            await delivery.stop()
        assert said(dispositions) == [("u@x", *TAKEN), ("a@x", *TAKEN), ("b@x", *TAKEN)]
        assert RCPT.findall(bytes(peer.lines[0].received)) == [b"a@x", b"u@x", b"b@x"]

    async def test_a_stop_holds_between_two_parts(self) -> None:
        """A27: a transfer that waits for the verdict on a part can be stopped: the next does not begin before go. The last cannot."""
        answers = [threading.Event(), threading.Event()]

        def script(line: Line) -> None:
            line.greet()
            line.envelope("250 ok", "452 4.5.3 one at a time")
            for number, answer in enumerate(answers):
                line.until(b"\r\n.\r\n")
                answer.wait(20)
                line.send("250 ok\r\n")
                if not number:
                    line.envelope()
            line.gone()

        with Peer(script) as peer:
            delivery = self.make(("*", peer.via))
            underway = Underway(delivery, request(peer.via, "a@x", "b@x"))
            await self.until(lambda: peer.lines and peer.lines[0].received.endswith(b"\r\n.\r\n"))
            assert underway.transfer.stop()
            answers[0].set()
            await self.turn(0.3)
            assert peer.lines[0].received.count(b"MAIL") == 1
            underway.transfer.go()
            await self.until(lambda: peer.lines[0].received.count(b"\r\n.\r\n") == 2)
            assert not underway.transfer.stop()
            answers[1].set()
            assert said(await underway.ended) == [("a@x", *TAKEN), ("b@x", *TAKEN)]
            await delivery.stop()
        assert len(peer.lines) == 1

    async def test_giving_up_begins_no_other_part(self) -> None:
        """`abandon` behind the final dot of the first part: its verdict is waited for, and the others are deferred unasked."""
        answer = threading.Event()

        def script(line: Line) -> None:
            line.greet(limited("RCPTMAX=1"))
            line.envelope()
            line.until(b"\r\n.\r\n")
            answer.wait(20)
            line.send("250 ok\r\n")
            line.gone()

        with Peer(script) as peer:
            delivery = self.make(("*", peer.via))
            underway = Underway(delivery, request(peer.via, "a@x", "b@x"))
            await self.until(lambda: peer.lines and peer.lines[0].received.endswith(b"\r\n.\r\n"))
            underway.transfer.abandon()
            answer.set()
            assert said(await underway.ended) == [("a@x", *TAKEN), ("b@x", 451, "abandoned")]
            await delivery.stop()
        assert peer.lines[0].received.count(b"MAIL") == 1

    async def test_giving_up_keeps_what_was_reached(self) -> None:
        """`abandon` in the second part: who has the message is delivered, the others are deferred."""

        def script(line: Line) -> None:
            line.greet(limited("RCPTMAX=1"))
            line.message()
            line.gone()

        with Peer(script) as peer:
            delivery = self.make(("*", peer.via))
            underway = Underway(delivery, request(peer.via, "a@x", "b@x"))
            await self.until(lambda: peer.lines and b"<b@x>" in peer.lines[0].received)
            underway.transfer.abandon()
            assert said(await underway.ended) == [("a@x", *TAKEN), ("b@x", 451, "abandoned")]
            await delivery.stop()
