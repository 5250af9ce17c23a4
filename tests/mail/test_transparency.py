"""mail.transparency: dots and the end of data (RFC 5321 §4.5.2), however the stream is cut."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from smtpplus.mail.transparency import Literal, Stuffer, Unstuffer

_pieces = st.lists(st.sampled_from([b"\r", b"\n", b".", b"x", b"\r\n", b"\r\n.", b"\r\n.\r\n", b"\n.\n", b"y" * 50]), max_size=14)


def _plain_model(stream: bytes) -> tuple[bytes, bytes, bool] | None:
    """Octet by octet, as the RFC tells it: (content, rest, bare), or None if the data does not end."""
    lines, rest = [], b"\r\n" + stream
    end = rest.find(b"\r\n.\r\n")
    if end < 0:
        return None
    data, rest = rest[2 : end + 2], rest[end + 5 :]
    lines = data.split(b"\r\n")
    bare = any(b"\r" in line or b"\n" in line for line in lines)
    return b"\r\n".join(line[1:] if line.startswith(b".") else line for line in lines), rest, bare


def _unstuffed(buffers: list[bytes]) -> tuple[bytes, bytes, bool] | None:
    unstuffer = Unstuffer()
    content = b"".join(unstuffer.feed(buffer) for buffer in buffers)
    return (content, unstuffer.rest, unstuffer.bare) if unstuffer.finished else None


def test_every_short_stream_and_every_cut() -> None:
    """All streams of up to 7 octets of CR LF . x, cut at every place and octet by octet, agree with the plain reading of the RFC."""
    for length in range(8):
        for octets in itertools.product(b"\r\n.x", repeat=length):
            stream = bytes(octets)
            wanted = _plain_model(stream)
            assert _unstuffed([stream[i : i + 1] for i in range(length)]) == wanted
            for cut in range(length + 1):
                assert _unstuffed([stream[:cut], stream[cut:]]) == wanted


@given(_pieces, st.lists(st.integers(0, 200), max_size=6))
@example([b"x", b"\r\n.\r\n", b"y", b"\r\n.\r\n"], [])
def test_chunking_makes_no_difference(pieces: list[bytes], cuts: list[int]) -> None:
    """Longer streams, cut anywhere, give what the whole gives."""
    stream = b"".join(pieces)
    places = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    assert _unstuffed([stream[a:b] for a, b in itertools.pairwise(places)]) == _plain_model(stream)


@pytest.mark.parametrize(
    "end", [b"\n.\n", b"\n.\r\n", b"\r.\r", b"\r.\r\n", b"\r\n.\n", b"\r\n.\r", b".\r\n", b"\r\n.\r\r\n", b"\r\n\x00.\r\n"]
)
def test_nothing_else_ends_the_data(end: bytes) -> None:
    """Only CRLF.CRLF ends the data: what other servers took for it (SMTP smuggling) does not, and its bare CR or LF is flagged."""
    smuggled = b"body" + end + b"MAIL FROM:<evil@a>\r\n"
    for buffers in ([smuggled], [smuggled[i : i + 1] for i in range(len(smuggled))]):
        unstuffer = Unstuffer()
        for buffer in buffers:
            unstuffer.feed(buffer)
        finished = [unstuffer.finished]
        unstuffer.feed(b"\r\n.\r\n")
        assert [*finished, unstuffer.finished] == [False, True]
        assert unstuffer.bare == (b"\r" in end.replace(b"\r\n", b"") or b"\n" in end.replace(b"\r\n", b""))


def test_a_first_dot_line_is_the_end() -> None:
    """RFC 5321 §4.1.1.4: the CRLF of the DATA line counts, so a message may be empty; later a line is needed before it."""
    assert _unstuffed([b".\r\nQUIT\r\n"]) == (b"", b"QUIT\r\n", False)
    assert _unstuffed([b".", b"\r", b"\n"]) == (b"", b"", False)
    assert _unstuffed([b"x.\r\n"]) is None


def test_the_first_dot_goes_whatever_follows() -> None:
    """RFC 5321 §4.5.2: of a line that begins with a dot and has more, the dot is deleted."""
    assert _unstuffed([b"..a\r\n.b\r\n...\r\n.\r\n"]) == (b".a\r\nb\r\n..\r\n", b"", False)


def test_what_follows_the_end_is_kept() -> None:
    """Pipelined commands behind the data are kept, also those of later buffers, and not judged."""
    unstuffer = Unstuffer()
    assert unstuffer.feed(b"a\r\n.\r\nMAIL\n") == b"a\r\n"
    assert unstuffer.feed(b"RCPT") == b""
    assert (unstuffer.rest, unstuffer.bare) == (b"MAIL\nRCPT", False)


def test_clear_octets_flow_at_once() -> None:
    """Memory does not grow: at most 4 octets wait for the next buffer."""
    unstuffer = Unstuffer()
    given_out = len(unstuffer.feed(b"x" * 100_000 + b"\r\n.\r"))
    assert given_out == 100_000
    assert unstuffer.feed(b"y\r\n") == b"\r\n\ry"


@given(_pieces, st.lists(st.integers(0, 200), max_size=6))
def test_stuffing_is_undone_by_unstuffing(pieces: list[bytes], cuts: list[int]) -> None:
    """Whatever the content and its cuts, the other side reads it back, ended by CRLF, and nothing behind it."""
    content = b"".join(pieces)
    places = [0, *sorted(min(cut, len(content)) for cut in cuts), len(content)]
    stuffer = Stuffer()
    wire = b"".join(stuffer.feed(content[a:b]) for a, b in itertools.pairwise(places)) + stuffer.finish()
    whole = Stuffer()
    assert wire == whole.feed(content) + whole.finish()
    read = _unstuffed([wire])
    assert read is not None
    ended = content if not content or content.endswith(b"\r\n") else content + b"\r\n"
    assert read[:2] == (ended, b"")


@pytest.mark.parametrize("cut", range(13))
def test_a_command_cannot_be_injected_at_a_cut(cut: int) -> None:
    """A dot line in the content never ends the data at the next hop, wherever the chunks are cut."""
    content = b"a\r\n.\r\nRSET\r\n"
    stuffer = Stuffer()
    wire = stuffer.feed(content[:cut]) + stuffer.feed(content[cut:]) + stuffer.finish()
    assert wire == b"a\r\n..\r\nRSET\r\n.\r\n"


@given(_pieces, st.lists(st.integers(0, 200), max_size=6))
@example([b"x\r"], [])
@example([b"\r", b"\n"], [1])
def test_data_of_known_length_is_what_it_is(pieces: list[bytes], cuts: list[int]) -> None:
    """RFC 3030 §2: octets of a chunk are content as they are; a bare CR or LF is flagged wherever the stream is cut, at its end too."""
    stream = b"".join(pieces)
    places = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    literal = Literal()
    assert b"".join(literal.feed(stream[a:b]) for a, b in itertools.pairwise(places)) == stream
    literal.finish()
    assert (literal.finished, literal.rest) == (True, b"")
    assert literal.bare == any(b"\r" in line or b"\n" in line for line in stream.split(b"\r\n"))
