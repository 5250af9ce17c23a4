"""Certificates: made where none is named, read where one is, and said in a sentence what is wrong."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from smtpplus.config import TLS, Configuration
from smtpplus.submission.tls import CERTIFICATE, PRIVATE_KEY, ServerTLS, TLSError, make_self_signed, server_tls

NOW = 1_800_000_000.0


def configuration(state: Path, **tls: str) -> Configuration:
    return Configuration(hostname="mail.example.com", state_directory=state, tls=TLS(**tls))  # type: ignore[arg-type]  # literals


def test_the_first_start_makes_a_p256_certificate(tmp_path: Path) -> None:
    """A3: STARTTLS works with no certificate configured: a P-256 one for the host name, its key readable by the owner only."""
    server_tls(configuration(tmp_path), NOW)
    certificate = x509.load_pem_x509_certificate((tmp_path / CERTIFICATE).read_bytes())
    key = certificate.public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    assert isinstance(key.curve, ec.SECP256R1)
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["mail.example.com"]
    assert stat.S_IMODE((tmp_path / PRIVATE_KEY).stat().st_mode) == 0o600
    assert certificate.not_valid_before_utc.timestamp() < NOW < certificate.not_valid_after_utc.timestamp()


def test_the_second_start_keeps_it(tmp_path: Path) -> None:
    """Clients that were told to trust the certificate see the same one after a restart."""
    server_tls(configuration(tmp_path), NOW)
    before = (tmp_path / CERTIFICATE).read_bytes()
    server_tls(configuration(tmp_path), NOW + 86_400)
    assert (tmp_path / CERTIFICATE).read_bytes() == before


def test_an_address_can_be_the_host_name(tmp_path: Path) -> None:
    """A host without a name gets an address in its certificate."""
    make_self_signed("192.0.2.1", tmp_path / "c.pem", tmp_path / "k.pem", NOW)
    certificate = x509.load_pem_x509_certificate((tmp_path / "c.pem").read_bytes())
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert [str(name) for name in names.get_values_for_type(x509.IPAddress)] == ["192.0.2.1"]


def test_what_is_wrong_is_said_in_a_sentence(tmp_path: Path) -> None:
    """A file that is not there, is no PEM, or does not fit names itself."""
    make_self_signed("a.example", tmp_path / "c1.pem", tmp_path / "k1.pem", NOW)
    make_self_signed("b.example", tmp_path / "c2.pem", tmp_path / "k2.pem", NOW)
    (tmp_path / "junk.pem").write_text("junk")
    for certificate, key, sentence in (
        ("none.pem", "k1.pem", "the certificate {}/none.pem cannot be read: No such file or directory"),
        ("junk.pem", "k1.pem", "{}/junk.pem holds no certificate in PEM form"),
        ("c1.pem", "junk.pem", "{}/junk.pem holds no private key in PEM form"),
        ("c1.pem", "k2.pem", "the private key {0}/k2.pem does not belong to the certificate {0}/c1.pem"),
    ):
        with pytest.raises(TLSError) as fault:
            server_tls(configuration(tmp_path, certificate=str(tmp_path / certificate), private_key=str(tmp_path / key)), NOW)
        assert str(fault.value) == sentence.format(tmp_path)


def test_a_failed_reload_changes_nothing(tmp_path: Path) -> None:
    """C10: new files are for new sessions; files that cannot be used leave what is in use."""
    make_self_signed("a.example", tmp_path / "c.pem", tmp_path / "k.pem", NOW)
    tls = ServerTLS(tmp_path / "c.pem", tmp_path / "k.pem", "1.2")
    first = tls._context
    (tmp_path / "c.pem").write_text("junk")
    with pytest.raises(TLSError):
        tls.reload()
    assert tls._context is first
    make_self_signed("b.example", tmp_path / "c.pem", tmp_path / "k.pem", NOW)
    tls.reload()
    assert tls._context is not first
