"""`/confirm/TOKEN`: the page behind the link that is mailed with a token.

GET shows what would be confirmed, and a button; POST confirms. Mail scanners follow links and press no buttons, so GET changes
nothing. The page is whole: no script, no picture, one style allowed by its hash. A token that does not count is told with its own sentence
and 404 or 410, never with a command: who reads this page has no command line.
"""

from __future__ import annotations

import base64
import hashlib
import html
import time
from typing import Callable

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from smtpplus.accounts import verification
from smtpplus.accounts.verification import Claim, TokenRefused
from smtpplus.events import Events, Verified
from smtpplus.operation.http import HEADERS, Answer, Asked, Page
from smtpplus.storage.database import Database

_STYLE = "body{font:1.1em/1.5 sans-serif;max-width:34em;margin:3em auto;padding:0 1em}button{font:inherit;padding:.5em 1.5em}"
_STYLE += "strong{overflow-wrap:anywhere}"
_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
_HEADERS = {"Content-Security-Policy": f"{HEADERS['Content-Security-Policy']}; style-src 'sha256-{_HASH}'"}
_PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{title}</title>
<style>{style}</style></head><body><h1>{title}</h1>
{body}
</body></html>
"""
_QUESTION = """<p>The user <strong>{user}</strong> of the mail server {hostname} wants to send mail as</p>
<p><strong>{address}</strong></p>
<form method="post"><button type="submit">Allow it</button></form>
<p>If you do not agree, or do not know what this is about, close this page: nothing happens then.</p>"""
_DONE = """<p>It is confirmed that the user <strong>{user}</strong> of the mail server {hostname}
may send mail as <strong>{address}</strong>.</p>"""
_REFUSED = "<p>{sentence}.</p><p>If this is not what you expected, ask whoever runs the mail server {hostname} to send you a new mail.</p>"


def confirmation(database: Database, hostname: str, events: Events, now: Callable[[], float] = time.time) -> Page:
    """The page, for the HTTP server; `now` gives seconds since the epoch."""

    def answer(asked: Asked) -> Deferred[Answer]:
        found = database.read(lambda connection: verification.look_up(connection, asked.rest, now=now()))
        if asked.method == "POST":
            return found.addCallback(use, asked).addErrback(refused)
        return found.addCallbacks(ask, refused)

    def ask(claim: Claim) -> Answer:
        return _answer(200, "May they send mail as you?", _QUESTION, user=claim.user.name, address=str(claim.entry), hostname=hostname)

    def use(_: Claim, asked: Asked) -> Deferred[Answer]:
        """Only what looks right reaches the writer, which looks again."""
        by = f"web {asked.client}"
        return database.write(lambda connection: verification.confirm(connection, asked.rest, now=now(), by=by)).addCallback(used, by)

    def used(claim: Claim, by: str) -> Answer:
        events.state(Verified(now(), claim.user.name, str(claim.entry), "token", by))
        return _answer(200, "Confirmed", _DONE, user=claim.user.name, address=str(claim.entry), hostname=hostname)

    def refused(failure: Failure) -> Answer:
        fault = failure.value
        if not isinstance(fault, TokenRefused):
            failure.raiseException()
        sentence = fault.sentence[:1].upper() + fault.sentence[1:]
        return _answer(404 if fault.why == "unknown" else 410, "Not confirmed", _REFUSED, sentence=sentence, hostname=hostname)

    return Page(answer, methods=("GET", "HEAD", "POST"), deep=True)


def _answer(status: int, title: str, body: str, **details: str) -> Answer:
    safe = {name: html.escape(detail) for name, detail in details.items()}
    page = _PAGE.format(title=html.escape(title), style=_STYLE, body=body.format(**safe))
    return Answer(status, page, "text/html; charset=utf-8", _HEADERS)
