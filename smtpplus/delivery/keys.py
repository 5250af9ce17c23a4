"""The keys that sign mail, in the database: made, listed, put to use, removed (RFC 6376 §3.1).

Private keys lie there in the clear. The file is readable by the daemon's user alone (mode 0600), and a key to them would have to lie beside
it. Every change raises the generation "dkim", by which a running daemon notices within a second. A fault is a `KeyFault`, a
sentence for the operator.
"""

from __future__ import annotations

import re
from typing import Any, Literal, Sequence

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat, load_pem_private_key
from sqlalchemy import Connection, Row, delete, insert, select, update

from smtpplus.mail import dkim
from smtpplus.mail.address import AddressError, normalize_domain
from smtpplus.mail.dkim import Algorithm
from smtpplus.storage.schema import dkim_keys, generation

GENERATION = "dkim"
RSA_BITS = 2048  # RFC 8301 §3.2; a longer key's record would not fit in one UDP answer
PrivateKey = RSAPrivateKey | Ed25519PrivateKey
_SELECTOR = re.compile(r"[a-z0-9](?:[a-z0-9-]*[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]*[a-z0-9])?)*").fullmatch  # RFC 6376 §3.1


class KeyFault(ValueError):
    """What cannot be done with keys; str() is a sentence without its full stop."""


class KeyUsage(KeyFault):
    """No domain or no selector is named where one belongs."""


class StoredKey(msgspec.Struct, frozen=True):
    """One key of a domain."""

    domain: str
    selector: str
    algorithm: Algorithm
    pem: str
    active: bool
    created_at: float

    def __repr__(self) -> str:
        return f"<StoredKey {self.name}>"

    @property
    def name(self) -> str:
        """Where its record is published."""
        return dkim.record_name(self.domain, self.selector)

    def private_key(self) -> PrivateKey:
        """The key itself; ValueError if the row is damaged."""
        key = load_pem_private_key(self.pem.encode(), None)
        if not isinstance(key, RSAPrivateKey | Ed25519PrivateKey):
            raise ValueError(f"{self.name} is neither RSA nor Ed25519")
        return key

    def record(self) -> str:
        """The text of the TXT record."""
        key = self.private_key()
        if isinstance(key, RSAPrivateKey):
            return dkim.record("rsa", key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))
        return dkim.record("ed25519", key.public_key().public_bytes_raw())


def add_keys(
    connection: Connection,
    domain: str,
    *,
    selector: str,
    algorithm: Literal["rsa", "ed25519", "both"],
    now: float,
    active: bool,
) -> list[StoredKey]:
    """Make a key, or with "both" one of each: then the selectors are `selector`-rsa and `selector`-ed25519, as a record holds one key."""
    name, selector = _domain(domain), selector.strip().lower()
    wanted: tuple[Algorithm, ...] = ("rsa", "ed25519") if algorithm == "both" else (algorithm,)
    made: list[StoredKey] = []
    for each in wanted:
        label = f"{selector}-{each}" if algorithm == "both" else selector
        if not _SELECTOR(label) or max(map(len, label.split("."))) > 63:
            raise KeyUsage(f'"{selector}" is no selector: it is made of letters, digits and hyphens')
        key: PrivateKey = generate_private_key(65_537, RSA_BITS) if each == "rsa" else Ed25519PrivateKey.generate()
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
        made.append(StoredKey(name, label, each, pem, active, now))
    taken = {key.selector for key in list_keys(connection, name)}
    for stored in made:
        if stored.selector in taken:
            raise KeyFault(
                f"there is a key with the selector {stored.selector} for {name}; name another one with --selector, or remove that key"
            )
        connection.execute(insert(dkim_keys).values(private_key=stored.pem, **_columns(stored)))
    raise_generation(connection)
    return made


def list_keys(connection: Connection, domain: str | None = None) -> list[StoredKey]:
    """All keys, or those of one domain: by domain, and the oldest first."""
    chosen = select(dkim_keys).order_by(dkim_keys.c.domain, dkim_keys.c.created_at, dkim_keys.c.id)
    if domain is not None:
        chosen = chosen.where(dkim_keys.c.domain == _domain(domain))
    return [_stored(row) for row in connection.execute(chosen)]


def get_keys(connection: Connection, domain: str, selector: str | None = None) -> list[StoredKey]:
    """The keys of a domain, or the one with this selector; KeyFault if there is none."""
    found = [key for key in list_keys(connection, domain) if selector is None or key.selector == selector.strip().lower()]
    if not found:
        which = f"no key with the selector {selector}" if selector else "no key"
        raise KeyFault(f"there is {which} for {_domain(domain)}; `smtpplus dkim list` names them, `smtpplus dkim add` makes one")
    return found


def put_to_use(connection: Connection, keys: Sequence[StoredKey]) -> None:
    """Let these keys sign from now on."""
    for key in keys:
        named = (dkim_keys.c.domain == key.domain, dkim_keys.c.selector == key.selector)
        connection.execute(update(dkim_keys).where(*named).values(active=True))
    raise_generation(connection)


def remove_keys(connection: Connection, keys: Sequence[StoredKey]) -> None:
    """Forget these keys for good."""
    for key in keys:
        connection.execute(delete(dkim_keys).where(dkim_keys.c.domain == key.domain, dkim_keys.c.selector == key.selector))
    raise_generation(connection)


def read_generation(connection: Connection) -> int:
    """A number that is another one after every change of keys."""
    return connection.scalar(select(generation.c.number).where(generation.c.name == GENERATION)) or 0


def raise_generation(connection: Connection) -> None:
    """Let running daemons notice: part of every change."""
    changed = connection.execute(update(generation).where(generation.c.name == GENERATION).values(number=generation.c.number + 1))
    if changed.rowcount == 0:
        connection.execute(insert(generation).values(name=GENERATION, number=1))


def _domain(text: str) -> str:
    try:
        name = normalize_domain(text)
    except AddressError as error:
        raise KeyUsage(str(error).rstrip(".")) from None
    if name.startswith("["):
        raise KeyUsage(f"{name} is an address; keys belong to domains")
    return name


def _columns(key: StoredKey) -> dict[str, Any]:
    return {
        "domain": key.domain,
        "selector": key.selector,
        "algorithm": key.algorithm,
        "active": key.active,
        "created_at": key.created_at,
    }


def _stored(row: Row[Any]) -> StoredKey:
    return StoredKey(row.domain, row.selector, row.algorithm, row.private_key, row.active, row.created_at)
