"""Routing: which hop a domain leads to."""

from __future__ import annotations

import msgspec

from smtpplus.config import Route
from smtpplus.delivery.routing import Hop, Router, Way


def router(*routes: tuple[str, str]) -> Router:
    return Router([Route(destination=destination, via=via) for destination, via in routes], mx_port=25)


def test_first_matching_route_wins() -> None:
    """The first route in the file that matches decides, however exact a later one is."""
    rules = router(("a.example", "smtp://one.example:25"), (".example", "smtp://two.example:25"), ("b.example", "discard:"), ("*", "mx"))
    assert rules.destination("a.example") == "smtp://one.example:25"
    assert rules.destination("b.example") == "smtp://two.example:25"
    assert rules.destination("deep.b.example") == "smtp://two.example:25"
    assert rules.destination("elsewhere.net") == "elsewhere.net"


def test_patterns_match_whole_labels() -> None:
    """A domain matches itself only, a subtree what is below it and not itself, and neither a mere ending."""
    rules = router(("a.example", "discard:"), (".b.example", "discard:"), ("*", "mx"))
    found = {
        domain: rules.destination(domain)
        for domain in ("a.example", "x.a.example", "nota.example", "b.example", "x.b.example", "xb.example")
    }
    assert [domain for domain, destination in found.items() if destination == "discard:"] == ["a.example", "x.b.example"]


def test_domains_are_compared_normalized() -> None:
    """Case, a final dot and IDN make no difference to where mail goes, nor to what is grouped."""
    rules = router(("*", "mx"))
    assert rules.destination("Bücher.Example") == rules.destination("xn--bcher-kva.example") == "xn--bcher-kva.example"


def test_a_hop_says_how_it_is_reached() -> None:
    """Each kind of `via` becomes a hop with its parts; MX uses the configured port."""
    rules = router(("a", "smtps://[::1]:465"), ("b", "maildir:/var/mail/{user}"), ("c", "discard:"), ("*", "mx"))
    hops = [rules.hop(rules.destination(domain)) for domain in ("a", "b", "c", "d.example")]
    assert hops == [
        Hop("smtps://[::1]:465", Way.SMTPS, "::1", 465),
        Hop("maildir:/var/mail/{user}", Way.MAILDIR, path="/var/mail/{user}"),
        Hop("discard:", Way.DISCARD),
        Hop("d.example", Way.MX, "d.example", 25),
    ]


def test_routes_with_other_credentials_are_other_destinations() -> None:
    """Mail that logs in as different users at one smarthost never shares a connection."""
    via = "smtp://smart.example:587"
    one = Route(destination="a.example", via=via, username="ann", password_file="/a")
    two = msgspec.structs.replace(one, destination="b.example", username="bob@x", password_file="/b")
    rules = Router([one, two], mx_port=25)
    first, second = (rules.hop(rules.destination(domain)) for domain in ("a.example", "b.example"))
    assert first == Hop("smtp://ann@smart.example:587", Way.SMTP, "smart.example", 587, username="ann", password_file="/a")
    assert second == Hop("smtp://bob@x@smart.example:587", Way.SMTP, "smart.example", 587, username="bob@x", password_file="/b")


def test_routes_have_their_own_encryption_and_source() -> None:
    """Two routes to one host that differ in `tls` or `source` are two destinations, and each still says so when its route is gone."""
    via = "smtp://smart.example:25"
    routes = [
        Route(destination="a.example", via=via, tls="verify"),
        Route(destination="b.example", via=via, source=("192.0.2.1", "2001:db8::1")),
        Route(destination="c.example", via=via),
        Route(destination="*", via="mx", tls="required", source=("192.0.2.2",)),
    ]
    rules = Router(routes, mx_port=25)
    names = [rules.destination(f"{letter}.example") for letter in "abcd"]
    hops = [rules.hop(name) for name in names]
    assert len(set(names)) == 4
    assert [(hop.host, hop.tls, hop.source) for hop in hops if hop] == [
        ("smart.example", "verify", ()),
        ("smart.example", "", ("192.0.2.1", "2001:db8::1")),
        ("smart.example", "", ()),
        ("d.example", "required", ("192.0.2.2",)),
    ]
    assert [router().hop(name) for name in names] == [*hops[:3], None]


def test_a_domain_without_route_has_no_hop() -> None:
    """Without a matching route there is no hop; the domain still is its own destination."""
    rules = router(("a.example", "mx"))
    assert rules.hop(rules.destination("a.example")) is not None
    assert rules.destination("b.example") == "b.example"
    assert rules.hop("b.example") is None


def test_a_destination_outlives_its_route() -> None:
    """Mail queued for a hop that the configuration no longer names still knows where to go, and an address literal is no scheme."""
    rules = router(("*", "mx"))
    assert rules.hop("smtp://old.example:2525") == Hop("smtp://old.example:2525", Way.SMTP, "old.example", 2525)
    assert rules.hop("[IPv6:::1]") == Hop("[IPv6:::1]", Way.MX, "[IPv6:::1]", 25)
