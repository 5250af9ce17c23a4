"""What is shown of a user name that nobody has: a mark, made of it by a key, since people type their password there.

The same name has the same mark as long as the key is the same, so that one client that is set up wrong can be told from somebody who
guesses, and whoever knows a name can ask for it (`smtpplus explain --user NAME`). Of the mark alone nothing can be learned about the name
without the key.
"""

from __future__ import annotations

import hmac

KEY = "scram.key"  # in the state directory: what marks, and SCRAM verifiers of users that are not there, are made of
UNKNOWN = "unknown:"  # no user name has a colon
_SHOWN = 5  # octets of the hash: of a million names two have the same mark by even chance


def mark(key: bytes, name: str) -> str:
    """What stands for `name`, as a client gave it; "" for the empty one. Upper and lower case are the same, as they are at login."""
    known_as = name.strip().lower()
    if not known_as:
        return ""
    hashed = hmac.digest(key, b"unknown user\0" + known_as.encode("utf-8", "surrogateescape"), "sha256")
    return UNKNOWN + hashed[:_SHOWN].hex()
