"""Dialogs as tests: lines of the client (`C:`) and patterns of the server's (`S:`), fed whole, by line and octet by octet."""

from __future__ import annotations

from fnmatch import fnmatchcase

from tests.submission.rig import Client

WAYS = ("line", "octet", "whole")


def spoken(dialog: str, by: str) -> list[tuple[bytes, list[str]]]:
    """The dialog as what to send, and the patterns of the lines that answer it. `by`: "whole", "line" or "octet"."""
    turns: list[tuple[bytes, list[str]]] = [(b"", [])]
    for line in dialog.strip().splitlines():
        side, _, text = line.partition(":")
        if side == "C":
            turns.append((text.removeprefix(" ").encode() + b"\r\n", []))
        else:
            turns[-1][1].append(text.removeprefix(" "))
    if by == "whole":
        return [turns[0], (b"".join(sent for sent, _ in turns), [pattern for _, patterns in turns[1:] for pattern in patterns])]
    return turns


def hold(port: int, dialog: str, by: str) -> list[str]:
    """Hold a dialog; the lines that were not answered as it says."""
    client, wrong = Client(port, greeting=False), list[str]()
    for sent, patterns in spoken(dialog, by):
        if by == "octet":
            for octet in sent:
                client.send(bytes((octet,)))
        else:
            client.send(sent)
        for pattern in patterns:
            line = client.line()
            if not fnmatchcase(line, pattern):
                wrong.append(f"{line!r} is not {pattern!r} after {sent[-80:]!r}")
    if not client.ended():
        wrong.append("the server did not close")
    client.close()
    return wrong
