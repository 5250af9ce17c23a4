"""Octets of a named charset as text: a closed list of charsets, whatever Python's codec registry would know besides.

The name comes from outside. The registry remembers every name it does not know, and has codecs that are no charsets and cost more than
their input is long (punycode, idna, zlib); so only the labels of the WHATWG Encoding Standard §4.2 reach it, each with the codec that
browsers and mail clients take it for: iso-8859-1 is windows-1252, gb2312 is gbk. UTF-7 is not among them. Never raises: octets that are
no text become U+FFFD.
"""

from __future__ import annotations

UNKNOWN = "unknown-8bit"  # RFC 1428 §3

_LABELS = {  # codec: its labels
    "utf-8": "utf-8 utf8 unicode-1-1-utf-8",
    "cp1252": "us-ascii ascii ansi_x3.4-1968 iso-8859-1 iso8859-1 iso_8859-1 latin1 latin-1 l1 windows-1252 cp1252 x-cp1252",
    "iso8859-2": "iso-8859-2 iso8859-2 latin2 latin-2 l2",
    "iso8859-3": "iso-8859-3 iso8859-3 latin3 latin-3 l3",
    "iso8859-4": "iso-8859-4 iso8859-4 latin4 latin-4 l4",
    "iso8859-5": "iso-8859-5 iso8859-5 cyrillic",
    "iso8859-6": "iso-8859-6 iso-8859-6-e iso-8859-6-i iso8859-6 arabic",
    "iso8859-7": "iso-8859-7 iso8859-7 greek",
    "iso8859-8": "iso-8859-8 iso-8859-8-e iso-8859-8-i iso8859-8 hebrew",
    "cp1254": "iso-8859-9 iso8859-9 latin5 latin-5 l5 windows-1254 cp1254",
    "iso8859-10": "iso-8859-10 iso8859-10 latin6 latin-6 l6",
    "cp874": "iso-8859-11 iso8859-11 tis-620 windows-874 cp874",
    "iso8859-13": "iso-8859-13 iso8859-13",
    "iso8859-14": "iso-8859-14 iso8859-14",
    "iso8859-15": "iso-8859-15 iso8859-15 latin9 latin-9 l9",
    "iso8859-16": "iso-8859-16 iso8859-16",
    "cp1250": "windows-1250 cp1250 x-cp1250",
    "cp1251": "windows-1251 cp1251 x-cp1251",
    "cp1253": "windows-1253 cp1253 x-cp1253",
    "cp1255": "windows-1255 cp1255 x-cp1255",
    "cp1256": "windows-1256 cp1256 x-cp1256",
    "cp1257": "windows-1257 cp1257 x-cp1257",
    "cp1258": "windows-1258 cp1258 x-cp1258",
    "cp866": "ibm866 cp866 866",
    "koi8-r": "koi8-r koi8 koi",
    "koi8-u": "koi8-u koi8-ru",
    "mac-roman": "macintosh mac x-mac-roman",
    "mac-cyrillic": "x-mac-cyrillic",
    "gbk": "gb2312 gb_2312-80 gb_2312 gbk x-gbk chinese cp936",
    "gb18030": "gb18030",
    "big5hkscs": "big5 big5-hkscs cn-big5",
    "cp932": "shift_jis shift-jis sjis ms_kanji windows-31j cp932 x-sjis",
    "euc-jp": "euc-jp x-euc-jp",
    "iso2022_jp": "iso-2022-jp",
    "cp949": "euc-kr ks_c_5601-1987 ksc5601 windows-949 cp949 korean",
    "utf-16-le": "utf-16 utf-16le",
    "utf-16-be": "utf-16be",
}
_CODECS = {label: codec for codec, labels in _LABELS.items() for label in labels.split()}
_ASCII = frozenset(("us-ascii", "ascii", "ansi_x3.4-1968"))


def known(charset: str) -> bool:
    """Whether `decode` knows the charset, whose name is in lower case."""
    return charset in _CODECS or charset == UNKNOWN


def decode(octets: bytes, charset: str) -> str:
    """`octets` as text of a charset that is `known`; as `guess` says for one that is not."""
    codec = _CODECS.get(charset)
    return guess(octets) if codec is None else octets.decode(codec, "replace")


def fits(octets: bytes, charset: str) -> bool:
    """Whether `octets` are whole text of a charset; true of one that is not `known`."""
    if charset in _ASCII:
        return octets.isascii()
    try:
        octets.decode(_CODECS.get(charset, "latin-1"))
    except UnicodeDecodeError:
        return False
    return True


def guess(octets: bytes) -> str:
    """Octets of no known charset: UTF-8 if they are that, else the commonest of the old ones."""
    try:
        return octets.decode("utf-8")
    except UnicodeDecodeError:
        return octets.decode("cp1252", "replace")
