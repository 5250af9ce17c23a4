"""The closed list of reasons: every refusal, deferral and failure smtpplus can state, with its code, its text and its remedy.

Replies, log, alerts, `explain` and docs/reasons.md all draw from `REASONS`; a reason that is not here does not exist. The first
digit of `reply_code` decides permanence (mail.reply), the enhanced code is that of RFC 3463 and its registry. A constant's name is its
code in upper case.

`text` and `remedy` are str.format templates over named details (`Reason.fields`). Details come from outside: they are made
printable and cut to `DETAIL_LIMIT` characters, and stay text whatever braces they hold. A detail that is missing reads "(unknown)":
wording must never turn a precise refusal into a fault. Between backticks, where commands stand, they are quoted for the shell. The
names in use: `address` as written, `domain`, `user`, `near` (what is authorized and resembles it), `where` ("envelope sender", "header
field From", ...), `command`, `parameter`, `limit`, `peer`, `cause`.

`python -m smtpplus.mail.reasons` prints docs/reasons.md.
"""

from __future__ import annotations

import string

import msgspec

from smtpplus.mail.command_line import quoted
from smtpplus.mail.reply import Reply, printable

DETAIL_LIMIT = 320  # characters of one detail: an address at its longest fits


class Refusal(Exception):
    """A command or message is refused: `reply` goes to the client, `reason` (a code of REASONS) to log, history and alerts."""

    def __init__(self, reply: Reply, reason: str) -> None:
        super().__init__(f"{reply} ({reason})")
        self.reply = reply
        self.reason = reason


class _Details(dict[str, str]):
    def __missing__(self, key: str) -> str:
        return "(unknown)"


class Reason(msgspec.Struct, frozen=True):
    """One reason. `code` is its name everywhere but on the wire; `explanation` is prose for docs and `explain`; `remedy` may be ""."""

    code: str
    reply_code: int
    enhanced: str
    text: str
    explanation: str
    remedy: str

    @property
    def fields(self) -> frozenset[str]:
        """The names of the details that text and remedy want."""
        return frozenset(name for part in (self.text, self.remedy) for _, name, _, _ in string.Formatter().parse(part) if name)

    def reply(self, **details: str) -> Reply:
        """The reply for these details: the text, then the remedy, on one logical line (Reply.wire splits it where it must)."""
        text, remedy = self.words(**details)
        return Reply(self.reply_code, self.enhanced, f"{text}; {remedy}" if remedy else text)

    def words(self, **details: str) -> tuple[str, str]:
        """Text and remedy for these details."""
        safe = _Details((name, printable(detail[:DETAIL_LIMIT])) for name, detail in details.items())
        shell = _Details((name, quoted(detail)) for name, detail in safe.items())
        parts = enumerate(self.remedy.split("`"))  # every second one is a command
        return self.text.format_map(safe), "`".join(part.format_map(shell if number % 2 else safe) for number, part in parts)

    def refusal(self, **details: str) -> Refusal:
        """What to raise: `raise reasons.SYNTAX.refusal(command="FOO")`."""
        return Refusal(self.reply(**details), self.code)


REASONS: dict[str, Reason] = {}


def _reason(code: str, reply: str, text: str, explanation: str, remedy: str = "") -> Reason:
    reply_code, enhanced = reply.split()
    reason = REASONS[code] = Reason(code, int(reply_code), enhanced, text, explanation, remedy)
    return reason


# --- the session: RFC 5321 §4.2, RFC 2034, RFC 3463 -------------------------------------------------------------------------------
SYNTAX = _reason(
    "syntax", "500 5.5.2", "Syntax error: {cause}", "The line is not an SMTP command as RFC 5321 §4.1.1 writes it.", "correct the client"
)
UNKNOWN_COMMAND = _reason(
    "unknown_command",
    "500 5.5.1",
    "The command is not known here",
    "No such command exists. It is not named: behind a refused AUTH it may be a password.",
    "EHLO lists what is offered",
)
COMMAND_NOT_IMPLEMENTED = _reason(  # beside UNKNOWN_COMMAND: RFC 5321 §4.2.4 wants 502 for a command that exists
    "command_not_implemented",
    "502 5.5.1",
    "Command {command} is not implemented",
    "The command exists, but this server does not carry it out.",
    "EHLO lists what is offered",
)
BAD_ARGUMENT = _reason(
    "bad_argument", "501 5.5.4", "Bad argument of {command}: {cause}", "The command is known; its argument is not as RFC 5321 writes it."
)
BAD_PARAMETER = _reason(
    "bad_parameter",
    "555 5.5.4",
    "Parameter {parameter} of {command} is not accepted: {cause}",
    "MAIL or RCPT has a parameter that is not offered, or whose value is wrong (RFC 5321 §4.1.1.11).",
    "use only what EHLO offers",
)
BAD_SEQUENCE = _reason(
    "bad_sequence",
    "503 5.5.1",
    "{command} is out of order: {cause}",
    "Commands have an order: EHLO, AUTH, MAIL, RCPT, DATA (RFC 5321 §4.1.4).",
)
LINE_TOO_LONG = _reason(
    "line_too_long",
    "500 5.5.6",
    "The line is longer than {limit} octets",
    "Command lines have a limit (RFC 5321 §4.5.3.1.4).",
    "send shorter lines",
)
BARE_LINE_END = _reason(
    "bare_line_end",
    "550 5.6.0",
    "The message has a CR or LF that is not part of CRLF",
    "Line ends in mail are CRLF and nothing else (RFC 5321 §2.3.8). A bare CR or LF lets one message pass for two at a server "
    "that reads it differently (SMTP smuggling), so such a message is refused whole.",
    "end every line with CRLF",
)
NUL_OCTET = _reason(
    "nul_octet",
    "550 5.6.0",
    "The message has a NUL octet",
    "Neither 7-bit nor 8-bit content may have one (RFC 2045 §2.7, §2.8). Servers that drop it would find the end of the data where it is "
    "not, and take the rest for commands (SMTP smuggling).",
    "send it with quoted-printable or base64",
)
BAD_MAILBOX = _reason(
    "bad_mailbox", "501 5.1.7", "The sender address is not valid: {cause}", "MAIL FROM has no address as RFC 5321 §4.1.2 writes it."
)
BAD_RECIPIENT = _reason(
    "bad_recipient", "501 5.1.3", "The recipient address is not valid: {cause}", "RCPT TO has no address as RFC 5321 §4.1.2 writes it."
)
TOO_MANY_RECIPIENTS = _reason(
    "too_many_recipients",
    "452 4.5.3",
    "A message takes at most {limit} recipients",
    "The recipients accepted so far stay accepted (RFC 5321 §4.5.3.1.10).",
    "send this message, then the next to the recipients that remain",
)
TOO_LARGE = _reason(
    "too_large",
    "552 5.3.4",
    "The message is larger than {limit} octets",
    "The limit is announced as SIZE in the answer to EHLO (RFC 1870) and set by `[limits] message_size`.",
    "send a smaller message",
)
LONG_LINE = _reason(
    "long_line",
    "550 5.6.0",
    "The message has a line longer than {limit} octets",
    "A line of a message has at most 1,000 octets with its CRLF (RFC 5321 §4.5.3.1.6), and `long_lines` is set to refuse longer ones.",
    "send such text as quoted-printable or base64",
)
TOO_MANY_MESSAGES = _reason(
    "too_many_messages",
    "452 4.5.3",
    "This connection had its {limit} messages",
    "Messages per connection are limited (`[limits] messages_per_connection`, announced as MAILMAX of LIMITS, RFC 9422 §4.1).",
    "open another connection",
)
OUT_OF_STEP = _reason(
    "out_of_step",
    "421 4.5.0",
    "What follows cannot be told from commands, closing",
    "A BDAT command does not say how many octets follow it; to go on would be to run message data as commands (RFC 3030 §2).",
    "correct the client",
)
UTF8_NEEDED = _reason(
    "utf8_needed",
    "553 5.6.7",
    "{address} has characters outside ASCII",
    "An address outside ASCII may be used only in a transaction that says SMTPUTF8 (RFC 6531 §3.4).",
    "give the parameter SMTPUTF8 with MAIL",
)
TLS_REQUIRED = _reason(
    "tls_required",
    "530 5.7.0",
    "Encryption is required here",
    'The listener has `tls = "starttls-required"`, or the message says REQUIRETLS (RFC 8689 §2).',
    "issue STARTTLS first",
)
AUTH_REQUIRED = _reason(
    "auth_required", "530 5.7.0", "Authentication is required", "Mail is accepted only from users (RFC 4954 §6).", "log in with AUTH first"
)
TRUSTED_USER = _reason(  # said to clients of trusted networks alone, who would submit as that user
    "trusted_user",
    "530 5.7.0",
    "The network of this client is trusted to submit as user {user}, but {cause}",
    "`trusted_as` of the [[listen]] names a user who does not exist or is not active, so that every client of its `trusted_networks` is "
    "asked to log in.",
    "the operator of this relay must name an active user in trusted_as of the [[listen]], or add or activate this one",
)
ENCRYPTION_FOR_AUTH = _reason(
    "encryption_for_auth",
    "538 5.7.11",
    "Authentication needs encryption here",
    "Passwords are not taken over an unencrypted connection (`auth_without_tls`).",
    "turn on STARTTLS in the mail client",
)
TOO_MANY_ERRORS = _reason(
    "too_many_errors",
    "421 4.7.0",
    "Too many bad commands ({limit} are allowed), closing",
    "`[limits] bad_commands`, or five times as much mail that was refused, without a message that was accepted. Of who is not logged in, "
    "every refusal counts.",
)
TOO_MANY_JUNK_COMMANDS = _reason(
    "too_many_junk_commands",
    "421 4.7.0",
    "Too many commands without a message ({limit} are allowed), closing",
    "NOOP, RSET, VRFY, HELP, EHLO and HELO bring nothing forward; `[limits] junk_commands` may come between two messages.",
    "send a message, or connect when there is one",
)
TOO_MANY_CONNECTIONS = _reason(
    "too_many_connections",
    "421 4.7.0",
    "Too many connections ({limit} are allowed), closing",
    "Connections are limited in all and per client (`[limits] connections`, `connections_per_client`).",
    "close some and try again later",
)
TOO_MANY_FAILED_LOGINS = _reason(
    "too_many_failed_logins",
    "421 4.7.0",
    "Too many failed logins ({limit} are allowed), closing",
    "Guessing passwords is slowed down: failed logins are counted per connection (`[limits] auth_failures_per_connection`), and per "
    "client address and user (`auth_failures_per_address`), whose further logins wait for their turn.",
    "check user and password, then try again later",
)
IDLE = _reason("idle", "421 4.4.2", "Nothing was sent for {limit} seconds, closing", "The session was idle (RFC 5321 §4.5.3.2.7).")
NO_LOGIN = _reason(
    "no_login",
    "421 4.4.2",
    "No login within {limit} seconds, closing",
    "A connection has `[limits] login` to become a user's; whoever only keeps it open takes a place that others need.",
    "log in first",
)
TOO_SLOW = _reason(
    "too_slow",
    "421 4.4.2",
    "The message comes at less than {limit} octets a second, closing",
    "Message data must come at `[limits] minimum_rate` on the average of half a minute; who drips takes a place that others need.",
    "try again over a better connection",
)
SHUTTING_DOWN = _reason(
    "shutting_down", "421 4.3.2", "The server is going down, closing", "An operator stops or restarts it.", "try again later"
)
LOCAL_FAULT = _reason(
    "local_fault", "451 4.3.0", "Local error in processing", "Something of ours went wrong; the log has it.", "try again later"
)
STORAGE_FAULT = _reason(
    "storage_fault",
    "452 4.3.1",
    "The message could not be stored",
    "The database could not take the message, so responsibility for it was not taken either; the log says why.",
    "try again later",
)

# --- login: one text on the wire, the true reason in log, alert and explain (A7, B1) ------------------------------------------------
LOGIN_FAILED = _reason(
    "login_failed",
    "535 5.7.8",
    "User or password is not correct",
    "The same words for every cause, so that strangers learn nothing (RFC 4954 §6). The log has the true reason.",
    "enter both anew in the mail client, or have the password reset",
)
UNKNOWN_USER = _reason(
    "unknown_user",
    "535 5.7.8",
    LOGIN_FAILED.text,
    "No user has this name. As people type their password there by mistake, only a mark of it is kept: the same for the same name.",
    "have the client's user name compared with `smtpplus user list`; `smtpplus explain --user NAME` finds what was tried as NAME",
)
WRONG_PASSWORD = _reason(
    "wrong_password",
    "535 5.7.8",
    LOGIN_FAILED.text,
    "The user exists, the password is another.",
    "`smtpplus user reset-password` makes a new one",
)
NO_SCRAM = _reason(
    "no_scram",
    "535 5.7.8",
    LOGIN_FAILED.text,
    "The client logs in by SCRAM, and there is no SCRAM verifier for the user's password: it was imported, or has characters that "
    "SCRAM cannot carry.",
    "`smtpplus user reset-password` makes one that serves both ways; or have the client log in by PLAIN",
)
OTHER_IDENTITY = _reason(
    "other_identity",
    "535 5.7.8",
    LOGIN_FAILED.text,
    "User and password are right, but the client wants to act for somebody else (the authorization identity of PLAIN, RFC 4616 §2), which "
    "nobody may.",
    "leave the authorization identity of the mail client empty",
)
INACTIVE_USER = _reason(
    "inactive_user", "535 5.7.8", LOGIN_FAILED.text, "The user exists but is not active.", "`smtpplus user activate` lets the user in"
)
INACTIVE_UNVERIFIED = _reason(
    "inactive_unverified",
    "535 5.7.8",
    LOGIN_FAILED.text,
    "The user exists but is not active, and none of their senders is verified.",
    "verify one with `smtpplus sender verify`, where senders must be verified; then `smtpplus user activate` lets the user in",
)
PASSWORD_CHANGED = _reason(
    "password_changed",
    "535 5.7.8",
    LOGIN_FAILED.text,
    "The session logged in with a password that was reset since; what it knew is good for no more mail.",
    "log in anew with the new password",
)
AUTH_CANCELLED = _reason("auth_cancelled", "501 5.7.0", "Authentication cancelled", "The client sent `*` (RFC 4954 §4).")
AUTH_MALFORMED = _reason(
    "auth_malformed",
    "501 5.5.2",
    "The authentication response cannot be decoded",
    "It is not base64, or not what the mechanism prescribes (RFC 4616, RFC 4954 §4).",
)
MECHANISM_UNKNOWN = _reason(
    "mechanism_unknown",
    "504 5.5.4",
    "The authentication mechanism {parameter} is not offered",
    "EHLO lists the mechanisms offered here (RFC 4954 §4).",
    "use one that EHLO lists",
)

# --- authorization of senders (A9 to A20, B2, B3) ---------------------------------------------------------------------------------------
_VISITOR = "an online form puts its visitor's address in Reply-To"
DOMAIN_NOT_AUTHORIZED = _reason(
    "domain_not_authorized",
    "550 5.7.1",
    "The {where} {address} is not authorized: {domain} is not one of the authorized domains of user {user}",
    "A user may send from the authorized domains (exactly as entered; `.a.com` covers the whole subtree) and the authorized senders. "
    "Envelope sender and header From are both checked. This domain is not among them.",
    "authorize the domain {domain}, or the address {address} alone; " + _VISITOR,
)
ADDRESS_NOT_AUTHORIZED = _reason(
    "address_not_authorized",
    "550 5.7.1",
    "The {where} {address} is not authorized: it is not one of the authorized senders of user {user}",
    "The user has authorized senders, also at this domain, but this address is not among them and its domain is not authorized as a "
    "whole. Envelope sender and header From are both checked.",
    "authorize the address {address}, or its whole domain {domain}; " + _VISITOR,
)
NEAR_DOMAIN = _reason(
    "near_domain",
    "550 5.7.1",
    "The {where} {address} is not authorized for user {user}: {near} is authorized, {domain} is not",
    "An authorized domain covers exactly itself: www.mycompany.com does not cover mycompany.com, nor the reverse. Addresses are "
    "usually at mycompany.com, so that is the one to enter; `.mycompany.com` covers it and everything under it.",
    "authorize {domain}",
)
SENDER_PENDING = _reason(
    "sender_pending",
    "550 5.7.1",
    "The {where} {address} is not authorized: {near} is entered for user {user}, but its verification is pending",
    "A new address or domain must be verified before it may be used: the token mailed to the address, or the DNS record of the domain.",
    "confirm the token or publish the record, or ask for them anew: `smtpplus sender verify {user} {near}`",
)
SENDER_NOT_VERIFIED = _reason(
    "sender_not_verified",
    "550 5.7.1",
    "The {where} {address} is not verified for user {user}",
    "The user has no list of senders, which allows every verified sender (`require_verified = true`); this one was never verified.",
    "add and verify it, `smtpplus sender add --verify {user} {address}`, or its domain {domain} in the same way; " + _VISITOR,
)
NO_FROM = _reason(
    "no_from",
    "550 5.7.1",
    "The message has no From address",
    "Authorization needs a header From with at least one address (RFC 5322 §3.6.2).",
    "add a header field From with an authorized address",
)
BAD_FROM = _reason(
    "bad_from",
    "550 5.6.0",
    "The {where} cannot be read: {cause}",
    "What cannot be read cannot be authorized; mail clients would disagree about who sent it (RFC 5322 §3.4, §3.6).",
    "write it as: From: Name <address>",
)

# --- the message -----------------------------------------------------------------------------------------------------------------------
LOOP = _reason(
    "loop",
    "554 5.4.6",
    "The message has passed {limit} servers or more: it goes in a circle",
    "So many Received fields mean a loop (RFC 5321 §6.3).",
    "mend the forwarding that sends it back here",
)
BAD_SMTPAPI = _reason(
    "bad_smtpapi",
    "550 5.6.0",
    "The header field X-SMTPAPI cannot be read: {cause}",
    "It says when the message is to go, how urgent it is and what it is counted under; a message that was to wait must not go now.",
    'write a JSON object with any of Schedule (a time such as "2026-12-24T08:00:00+01:00"), Priority (1 to 5) and CampaignCode',
)
BAD_HEADER = _reason(
    "bad_header",
    "550 5.6.0",
    "The message header is not valid: {cause}",
    "The header breaks a rule of RFC 5322.",
    "correct the program that wrote it",
)

# --- delivery: these also stand in dispositions and bounces (RFC 3463, RFC 3464 §2.3.6) --------------------------------------------------
DELIVERED = _reason("delivered", "250 2.0.0", "Delivered to {peer}", "The next hop took responsibility, or the message is in its mailbox.")
CONNECTION_REFUSED = _reason(
    "connection_refused",
    "451 4.4.1",
    "{peer} refuses connections",
    "Nothing listens there, or a firewall says no. It is tried again by the schedule.",
)
SESSION_REFUSED = _reason(
    "session_refused",
    "451 4.3.2",
    "{peer} refuses a session: {cause}",
    "It had other sessions lately, or other hosts for the same mail could not be looked up: that is no verdict on a message. "
    "It is tried again.",
)
CONNECTION_TIMED_OUT = _reason(
    "connection_timed_out",
    "451 4.4.1",
    "{peer} does not answer",
    "The connection, or an answer, took too long. It is tried again by the schedule.",
)
CONNECTION_LOST = _reason(
    "connection_lost",
    "451 4.4.2",
    "The connection to {peer} was lost: {cause}",
    "It broke before the next hop answered. It is tried again.",
)
DNS_FAILED = _reason(
    "dns_failed",
    "451 4.4.3",
    "The name servers gave no answer about {domain}: {cause}",
    "The lookup failed, which says nothing about whether the domain exists. It is tried again.",
)
NO_SUCH_DOMAIN = _reason(
    "no_such_domain",
    "550 5.1.2",
    "The domain {domain} does not exist",
    "DNS says so (NXDOMAIN).",
    "look for a slip in the recipient's address",
)
NULL_MX = _reason(
    "null_mx",
    "556 5.1.10",
    "The domain {domain} takes no mail",
    "It says so by a null MX record (RFC 7505).",
    "look for a slip in the recipient's address",
)
NO_ROUTE = _reason(
    "no_route",
    "550 5.4.4",
    "There is no route to {domain}",
    "The domain exists but has neither MX nor address records, or no [[route]] of the configuration matches it.",
    "look for a slip in the recipient's address",
)
SOURCE_UNFIT = _reason(
    "source_unfit",
    "451 4.4.0",
    "There is no connection to {domain} from the source address of its route: {cause}",
    "The `source` of the [[route]] is no address of this machine, or of another family than the hosts of the next hop. It is tried again.",
    "correct source of the [[route]]",
)
TLS_UNAVAILABLE = _reason(
    "tls_unavailable",
    "454 4.7.4",
    "{peer} does not offer encryption, which is required here",
    "`[delivery] tls` asks for TLS. It is tried again.",
)
TLS_FAILED = _reason(
    "tls_failed",
    "454 4.7.5",
    "Encryption with {peer} failed: {cause}",
    "The handshake failed, or the certificate is not to be trusted where `[delivery] tls` wants that. It is tried again.",
)
PEER_LOGIN_FAILED = _reason(  # a smarthost that refuses our credentials: temporary, as a password can be corrected while mail waits
    "peer_login_failed",
    "454 4.7.0",
    "{peer} did not accept our login: {cause}",
    "User or password of the route are wrong, or the smarthost does not offer a mechanism we know. Mail waits and is tried again.",
    "correct username and password_file of the [[route]]",
)
PEER_DEFERRED = _reason(
    "peer_deferred", "450 4.0.0", "{peer} says later: {cause}", "The next hop answered 4xx. It is tried again by the schedule."
)
PEER_REFUSED = _reason(
    "peer_refused", "550 5.0.0", "{peer} refused: {cause}", "The next hop answered 5xx, which is final. Its own words say why."
)
PEER_BROKE_PROTOCOL = _reason(
    "peer_broke_protocol",
    "451 4.5.0",
    "{peer} does not speak SMTP properly: {cause}",
    "Its answer makes no sense here. It is tried again.",
)
PEER_LACKS_8BITMIME = _reason(
    "peer_lacks_8bitmime",
    "554 5.6.3",
    "{peer} does not take 8-bit messages, and this one cannot be converted: {cause}",
    "The message has octets outside ASCII and the next hop does not offer 8BITMIME (RFC 6152 §3). A MIME message is converted to"
    " quoted-printable, unless a signature would break, or something else than the bodies of its parts has such octets.",
    "send it with quoted-printable or base64",
)
PEER_LACKS_SMTPUTF8 = _reason(
    "peer_lacks_smtputf8",
    "553 5.6.7",
    "{peer} does not take internationalized mail",
    "An address or header is in UTF-8 and the next hop does not offer SMTPUTF8 (RFC 6531 §3.5).",
    "use addresses and headers in ASCII",
)
PEER_SIZE_LIMIT = _reason(  # known from the peer's SIZE before a single octet is sent: RFC 1870 §6.1
    "peer_size_limit",
    "552 5.3.4",
    "{peer} takes messages up to {limit} octets only",
    "The next hop announces a SIZE that is smaller than the message (RFC 1870).",
    "send a smaller message",
)
PEER_LACKS_REQUIRETLS = _reason(  # RFC 8689 §4.2.1 and §6.3
    "peer_lacks_requiretls",
    "554 5.7.30",
    "{peer} gets no message that requires TLS: {cause}",
    "The message says REQUIRETLS. It goes only over verified TLS, to a host not merely found by DNS that promises the same (RFC 8689).",
    "send it without REQUIRETLS, or give the domain a [[route]] to a host that offers it",
)
PEER_LACKS_DELIVERBY = _reason(  # RFC 2852 §4.1.4
    "peer_lacks_deliverby",
    "554 5.3.3",
    "{peer} does not promise to return the message if it is late",
    "The message says BY with R. It goes only to a next hop that offers DELIVERBY and can do so in the time that is left (RFC 2852).",
    "send it with the mode N, or without BY",
)
CONTENT_LOST = _reason(
    "content_lost",
    "451 4.3.0",
    "The stored message could not be read",
    "The disk did not give it back; the log says why. It is tried again.",
)
MAILDIR_FAILED = _reason(
    "maildir_failed", "451 4.2.0", "The message could not be written to {peer}: {cause}", "The file system refused. It is tried again."
)
NO_MAILDIR = _reason(
    "no_maildir",
    "550 5.1.1",
    "There can be no mailbox for this recipient: {cause}",
    "The Maildir of a route with placeholders is named after the recipient, but cannot have that name. It is not tried again.",
    "check the recipient address",
)
EXPIRED = _reason(
    "expired",
    "554 5.4.7",
    "The message could not be delivered in time; the last answer was: {cause}",
    "Every attempt failed for a passing reason until `[queue] lifetime`, or the time that the sender set (BY=…;R), was over.",
    "send it again later",
)
TOO_LATE = _reason(
    "too_late",
    "554 5.4.7",
    "The time by which the message was to be delivered is over",
    "The sender wanted it back rather than late (BY=…;R, RFC 2852), so no further attempt was made.",
)
ABANDONED = _reason("abandoned", "451 4.3.2", "The attempt was given up as the server stopped", "It is tried again after the start.")
UNEXPECTED = _reason(  # an exception of ours during an attempt defers, never bounces
    "unexpected", "451 4.3.0", "Local error in delivery", "Something of ours went wrong; the log has it. It is tried again."
)
SELF_LOOP = _reason(
    "self_loop",
    "554 5.4.6",
    "Mail for {domain} comes back to this server",
    "Its MX records, or the route, lead to ourselves (RFC 5321 §5.1).",
    "give the domain a [[route]], or correct its MX records",
)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def document() -> str:
    """docs/reasons.md: one table row per reason, in the order of this module."""
    lines = [
        "# Reasons",
        "",
        "Why smtpplus refuses, defers or fails. Replies, log, alerts and `explain` use these and no others. Words in braces stand",
        "for details. Written by `python -m smtpplus.mail.reasons > docs/reasons.md`.",
        "",
        "| reason | reply | text | what it means | remedy |",
        "|---|---|---|---|---|",
    ]
    for reason in REASONS.values():
        cells = (reason.text, reason.explanation, reason.remedy or "-")
        lines.append(f"| `{reason.code}` | {reason.reply_code} {reason.enhanced} | {' | '.join(map(_cell, cells))} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(document(), end="")
