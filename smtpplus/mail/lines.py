"""Whether lines of octets keep a limit, in far fewer steps than there are octets. Pure, never raises."""

from __future__ import annotations


def overlong(octets: bytes, limit: int) -> bool:
    """Whether `limit` octets without a LF among them stand anywhere; a CR counts. It jumps from line end to line end."""
    at, last = 0, len(octets) - limit
    while at <= last:
        end = octets.rfind(b"\n", at, at + limit)
        if end < 0:
            return True
        at = end + 1
    return False
