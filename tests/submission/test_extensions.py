"""What EHLO offers works, and only where it is offered: sessions over real sockets, and what is kept with the message."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any

from twisted.internet.defer import inlineCallbacks

from smtpplus.accounts.settings import Settings
from smtpplus.accounts.user import Sender
from smtpplus.config import Limits, Listen, Submission
from smtpplus.mail.envelope import Envelope, Recipient
from smtpplus.submission.offer import KEYWORDS
from tests.submission.dialog import WAYS, hold
from tests.submission.rig import LOGIN, MESSAGE, USER, Client, SessionCase, status

OFFERED = "S: 250-*\n" * 14 + "S: 250 *"

PARAMETERS = f"""
S: 220 *
C: EHLO client.example
{OFFERED}
C: {LOGIN}
S: 235 *
C: MAIL FROM:<app@a.com> RET=SOME
S: 501 5.5.4 *RET=SOME*
C: MAIL FROM:<app@a.com> RET=FULL RET=HDRS
S: 501 5.5.4 *twice*
C: MAIL FROM:<app@a.com> ENVID=a+b
S: 501 5.5.4 *
C: MAIL FROM:<app@a.com> NOTIFY=NEVER
S: 555 5.5.4 *NOTIFY*
C: MAIL FROM:<app@a.com> MT-PRIORITY=10
S: 501 5.5.4 *
C: MAIL FROM:<app@a.com> HOLDFOR=2592001
S: 501 5.5.4 *2592000 seconds*
C: MAIL FROM:<app@a.com> HOLDFOR=5 HOLDUNTIL=2040-01-01T00:00:00Z
S: 501 5.5.4 *exclude*
C: MAIL FROM:<app@a.com> HOLDUNTIL=2020-01-01T00:00:00Z
S: 501 5.5.4 *over*
C: MAIL FROM:<app@a.com> HOLDUNTIL=2140-01-01T00:00:00Z
S: 501 5.5.4 *2592000 seconds*
C: MAIL FROM:<app@a.com> BY=59;R
S: 555 5.5.4 *60 seconds*
C: MAIL FROM:<app@a.com> BY=0;R
S: 501 5.5.4 *
C: MAIL FROM:<app@a.com> HOLDFOR=600 BY=600;R
S: 501 5.5.4 *released*
C: MAIL FROM:<app@a.com> REQUIRETLS
S: 530 5.7.0 *STARTTLS*
C: MAIL FROM:<app@a.com> BODY=BINARYMIME
S: 501 5.5.4 *
C: MAIL FROM:<app@a.com> RET=HDRS ENVID=a+2Bb+20c SIZE=100 BODY=8BITMIME HOLDFOR=600 BY=-5;NT MT-PRIORITY=-3 AUTH=<>
S: 250 2.3.6 0 *
C: RCPT TO:<x@example.net> NOTIFY=NEVER,DELAY
S: 501 5.5.4 *
C: RCPT TO:<x@example.net> RET=FULL
S: 555 5.5.4 *
C: RCPT TO:<x@example.net> ORCPT=x@example.net
S: 501 5.5.4 *
C: RCPT TO:<x@example.net> ORCPT=utf-8;jörg@example.net
S: 553 5.6.7 *
C: RCPT TO:<x@example.net> NOTIFY=delay,SUCCESS ORCPT=rfc822;X+2By@example.net
S: 250 2.1.5 *
C: RCPT TO:<y@example.net> NOTIFY=NEVER
S: 250 2.1.5 *
C: DATA
S: 354 *
C: From: app@a.com
C:
C: .
S: 250 2.0.0 queued as *
C: QUIT
S: 221 *
"""

EVERYTHING = [  # commands whose answers, with those of the tests above, are of every kind
    *("NOOP", "HELP", "VRFY x", "EXPN x", "WHAT", "", "RSET", "MAIL FROM:<app@a.com>", "AUTH LOGIN", "*", "AUTH PLAIN !", "AUTH X"),
    *(
        LOGIN.replace("h", "i", 1),
        LOGIN,
        "AUTH PLAIN =",
        "MAIL FROM:<x@b.com>",
        "MAIL FROM:<ö@a.com>",
        "MAIL FROM:<app@a.com> SIZE=9999999",
    ),
    *("MAIL FROM:<app@a.com> X=1", "MAIL FROM:<app@a.com", "MAIL FROM:<app@a.com> MT-PRIORITY=0", "RCPT TO:<>", "RCPT TO:<x@example.net>"),
    *("RCPT TO:<y@example.net>", "BDAT 0", "DATA", "BDAT 0 LAST", "RSET x", "EHLO", "QUIT"),
]


class ExtensionTests(SessionCase):
    """One user, who may send as a.com."""

    def submitted(self, parameters: str, *, tls: bool = False, recipient: str = "") -> Any:
        """Submit a message with these parameters of MAIL and RCPT; fires with the answer to MAIL and the envelope that is kept."""

        def dialog() -> tuple[str, str]:
            client = Client(self.port)
            if tls:
                client.codes("EHLO client.example", "STARTTLS")
                client.start_tls()
            client.codes("EHLO client.example", LOGIN)
            (answer,) = client.say(f"MAIL FROM:<app@a.com> {parameters}".strip())
            client.codes(f"RCPT TO:<x@example.net> {recipient}".strip(), "DATA")
            client.send(MESSAGE + b".\r\n")
            end = status(client.reply())
            client.close()
            return answer, end

        def kept(answers: tuple[str, str]) -> tuple[str, Envelope]:
            self.assertEqual(answers[1], "250 2.0.0")
            return answers[0], self.spool.kept[-1].envelope

        return self.during(dialog).addCallback(kept)

    @inlineCallbacks
    def test_parameters_are_read_strictly_and_kept(self) -> Any:
        """C1: unknown 555, malformed, doubled or out of range 501; values are kept with the message as they are meant."""
        self.serve(limits=Limits(bad_commands=100))
        for by in WAYS:
            wrong = yield self.during(hold, self.port, PARAMETERS, by)
            self.assertEqual(wrong, [], by)
        for kept in self.spool.kept:
            envelope = kept.envelope
            self.assertEqual((envelope.ret, envelope.envid, envelope.body, envelope.by_mode), ("HDRS", "a+b c", "8BITMIME", "NT"))
            notified = Recipient("x@example.net", "SUCCESS,DELAY", "rfc822;X+y@example.net")
            self.assertEqual(envelope.recipients, (notified, Recipient("y@example.net", "NEVER")))
            self.assertTrue(595 < envelope.release_at - envelope.received_at <= 600)
            self.assertTrue(-10 < envelope.deliver_by - envelope.received_at <= -5)
        self.assertEqual(len(self.spool.kept), 3)

    @inlineCallbacks
    def test_each_keyword_is_offered_where_it_works(self) -> Any:
        """RFC 5321 §4.1.1.1: STARTTLS before TLS alone, REQUIRETLS under it alone, AUTH where it may be, FUTURERELEASE and MAILMAX as
        they are set; no BINARYMIME."""
        settings: dict[str, Any] = {"limits": Limits(messages_per_connection=7, recipients=5)}
        self.serve(Listen(auth_without_tls="never"), submission=Submission(future_release=0.0), **settings)

        def offers() -> list[dict[str, str]]:
            client = Client(self.port)
            found = []
            for secure in (False, True):
                if secure:
                    client.say("STARTTLS")
                    client.start_tls()
                lines = [line[4:] for line in client.say("EHLO client.example")[0].split("\n")[1:]]
                found.append({keyword: rest for keyword, _, rest in (line.partition(" ") for line in lines)})
            client.close()
            return found

        clear, secure = yield self.during(offers)
        always = {keyword for keyword, _ in KEYWORDS} - {"STARTTLS", "REQUIRETLS", "AUTH", "FUTURERELEASE"}
        self.assertEqual(set(clear), always | {"STARTTLS"})
        self.assertEqual(set(secure), always | {"REQUIRETLS", "AUTH"})
        self.assertEqual((clear["LIMITS"], clear["SIZE"], clear["DELIVERBY"]), ("MAILMAX=7 RCPTMAX=5", "52428800", "60"))

    @inlineCallbacks
    def test_the_time_of_release_is_offered_and_kept(self) -> Any:
        """A30, RFC 4865 §4: interval and latest time are announced, both can be used, and what is held says until when."""
        self.serve(submission=Submission(future_release=86_400.0))

        def offered() -> str:
            client = Client(self.port)
            (answer,) = client.say("EHLO client.example")
            client.close()
            return answer

        answer = yield self.during(offered)
        found = re.search(r"250-FUTURERELEASE 86400 (\S+)\n", answer)
        assert found is not None
        latest = datetime.fromisoformat(found[1])
        self.assertTrue(timedelta(seconds=86_400 - 61) < latest - datetime.now(UTC) <= timedelta(seconds=86_400))
        _, envelope = yield self.submitted(f"HOLDUNTIL={found[1]}")
        self.assertEqual(envelope.release_at, latest.timestamp())
        _, envelope = yield self.submitted("HOLDFOR=86400")
        self.assertTrue(86_395 < envelope.release_at - envelope.received_at <= 86_400)
        _, envelope = yield self.submitted("")
        self.assertEqual((envelope.release_at, envelope.deliver_by, envelope.by_mode), (0.0, 0.0, ""))

    @inlineCallbacks
    def test_what_is_off_is_not_known(self) -> Any:
        """C1: a parameter of an extension that is not offered here is 555 5.5.4, though it exists."""
        self.serve(Listen(auth_without_tls="always", tls="none"), submission=Submission(future_release=0.0))

        def dialog() -> list[str]:
            client = self.logged_in()
            codes = client.codes(
                *(f"MAIL FROM:<app@a.com> {each}" for each in ("HOLDFOR=5", "HOLDUNTIL=2040-01-01T00:00:00Z", "REQUIRETLS"))
            )
            client.close()
            return codes

        codes = yield self.during(dialog)
        self.assertEqual(codes, ["555 5.5.4"] * 3)

    @inlineCallbacks
    def test_requiretls_is_for_sessions_under_tls(self) -> Any:
        """RFC 8689 §2: taken and kept where the message came in by TLS."""
        self.serve()
        answer, envelope = yield self.submitted("REQUIRETLS", tls=True)
        self.assertEqual((status(answer), envelope.require_tls), ("250 2.1.0", True))
        _, envelope = yield self.submitted("", tls=True)
        self.assertFalse(envelope.require_tls)

    @inlineCallbacks
    def test_mt_priority_sets_the_level_and_says_what_became_of_it(self) -> Any:
        """A24, RFC 6710 §4.1: the mapping of all values; it wins over the header; 250 X.3.6 where user or ceiling decide otherwise."""
        self.serve()
        levels = {-9: 5, -6: 5, -5: 4, -1: 4, 0: 3, 1: 2, 5: 2, 6: 1, 9: 1}
        self.add_user("bulk", domains=(Sender("domain", "a.com"),), settings=Settings(priority=5, ceiling=3))
        found = yield self.during(self._prioritized, levels)
        self.assertEqual(
            [answer for answer, _ in found], ["250 2.1.0"] * 4 + ["250 2.1.0", "250 2.3.6", "250 2.3.6", "250 2.3.6", "250 2.3.6"]
        )
        self.assertEqual([words for _, words in found][5:], ["0"] * 4)
        self.assertEqual([kept.envelope.level for kept in self.spool.kept], [max(level, 3) for level in levels.values()])

    def _prioritized(self, levels: dict[int, int]) -> list[tuple[str, str]]:
        """MAIL of the user `bulk` for each value, then a message whose header says something else; status and first word of each answer."""
        client = Client(self.port)
        client.codes("EHLO client.example", "AUTH PLAIN AGJ1bGsAY29ycmVjdC1ob3JzZQ==")
        found = []
        for asked in levels:
            (answer,) = client.say(f"MAIL FROM:<app@a.com> MT-PRIORITY={asked}")
            found.append((status(answer), answer.split()[2]))
            client.codes("RCPT TO:<x@example.net>", "DATA")
            client.send(b"X-Priority: %d\r\n" % (1 if asked <= 0 else 5) + MESSAGE + b".\r\n")
            assert status(client.reply()) == "250 2.0.0"
        client.close()
        return found

    @inlineCallbacks
    def test_size_is_the_users_own(self) -> Any:
        """RFC 1870 §6: after login EHLO says what the user may send; more is refused at MAIL where it is declared, after the data where
        it is found, and the session goes on."""
        self.serve()
        self.add_user("small", domains=(Sender("domain", "a.com"),), settings=Settings(message_size=200))

        def dialog() -> list[str]:
            client = Client(self.port)
            sizes = [re.findall("SIZE (.*)", client.say("EHLO client.example")[0])]
            client.codes("AUTH PLAIN AHNtYWxsAGNvcnJlY3QtaG9yc2U=")
            sizes.append(re.findall("SIZE (.*)", client.say("EHLO client.example")[0]))
            answers = client.codes("MAIL FROM:<app@a.com> SIZE=201", "MAIL FROM:<app@a.com> SIZE=200", "RCPT TO:<x@example.net>", "DATA")
            client.send(MESSAGE + b"x" * 200 + b"\r\n.\r\n")
            answers += [status(client.reply()), *client.codes("MAIL FROM:<app@a.com>", "RCPT TO:<x@example.net>", "DATA")]
            client.send(MESSAGE + b".\r\n")
            answers.append(status(client.reply()))
            client.close()
            return [*(size for (size,) in sizes), *answers]

        answers = yield self.during(dialog)
        self.assertEqual(answers[:2], ["52428800", "200"])
        self.assertEqual(answers[2:6], ["552 5.3.4", "250 2.1.0", "250 2.1.5", "354"])
        self.assertEqual(answers[6:], ["552 5.3.4", "250 2.1.0", "250 2.1.5", "354", "250 2.0.0"])

    @inlineCallbacks
    def test_limits_are_kept_to(self) -> Any:
        """RFC 9422 §4: MAILMAX transactions, however they end, and RCPTMAX recipients of each; both refused with 452 4.5.3."""
        self.serve(limits=Limits(messages_per_connection=2, recipients=2, grace=0.2))

        def dialog() -> list[str]:
            client = self.logged_in()
            codes = client.codes("MAIL FROM:<app@a.com>", *(f"RCPT TO:<{name}@example.net>" for name in "xyz"), "RSET")
            codes += client.codes("MAIL FROM:<stranger@b.com>", "MAIL FROM:<app@a.com>", "RSET", "MAIL FROM:<app@a.com>", "NOOP")
            client.close()
            return codes

        codes = yield self.during(dialog)
        self.assertEqual(codes[:5], ["250 2.1.0", "250 2.1.5", "250 2.1.5", "452 4.5.3", "250 2.0.0"])
        self.assertEqual(codes[5:], ["550 5.7.1", "250 2.1.0", "250 2.0.0", "452 4.5.3", "250 2.0.0"])

    @inlineCallbacks
    def test_received_says_how_the_message_came(self) -> Any:
        """RFC 3848, RFC 6531 §4.3: ESMTPA in clear, ESMTPSA under TLS, UTF8SMTP… with SMTPUTF8; the user's name is nowhere in it."""
        self.serve()
        for parameters, tls, protocol in (
            ("", False, b"ESMTPA"),
            ("", True, b"ESMTPSA"),
            ("SMTPUTF8", False, b"UTF8SMTPA"),
            ("SMTPUTF8", True, b"UTF8SMTPSA"),
        ):
            yield self.submitted(parameters, tls=tls)
            trace = self.spool.kept[-1].content.partition(b"\r\nFrom:")[0]
            self.assertIn(b" with %s id " % protocol, trace)
            self.assertNotIn(USER.encode(), trace)

    @inlineCallbacks
    def test_every_reply_has_its_enhanced_code(self) -> Any:
        """RFC 2034 §4: all 2xx, 4xx and 5xx replies but greeting, EHLO and HELO, of the same class as the code; 3xx have none."""
        self.serve(limits=Limits(bad_commands=100, message_size=10_000, recipients=1))

        def dialog() -> list[str]:
            client = Client(self.port)
            client.say("EHLO client.example")
            replies = client.say(*EVERYTHING)
            client.close()
            client = self.logged_in()
            client.send(b"BDAT x\r\n")
            replies += [client.reply(), client.reply()]
            client.close()
            return replies

        replies = yield self.during(dialog)
        kinds = "214 221 235 250 252 334 421 452 500 501 502 503 504 530 535 550 552 553 555"
        self.assertEqual(sorted({reply[:3] for reply in replies}), kinds.split())
        for reply in replies:
            for line in reply.split("\n"):
                if line[0] == "3":
                    self.assertNotRegex(line, r"^3\d\d \d\.\d")
                else:
                    self.assertRegex(line, rf"^{line[0]}\d\d[ -]{line[0]}\.\d{{1,3}}\.\d{{1,3}} \S")
