"""The options, key for key as `etc/smtpplus.toml` documents them, with types and defaults.

Durations are seconds, sizes octets. A type of an option is an annotation with a description ("must be …") and, where its text is
more than its value, the function of `values` that reads it. Relations between options are checked in `loading`. An attribute
whose key is a Python keyword ends in an underscore.
"""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Annotated, Any, Callable, Literal

import msgspec
from msgspec import Meta, Struct

from smtpplus.config import values
from smtpplus.config.values import Endpoint, Network, PortRange


def _read(by: Callable[[str], Any], description: str) -> Meta:
    """The annotation of an option that is written as a string which `by` reads."""
    return Meta(description=description, extra={"read": by})


Text = Annotated[str, Meta(description="a string")]
FilePath = Annotated[str, Meta(description="a string, the path of a file", extra={"path": "file"})]
Switch = Annotated[bool, Meta(description="true or false")]
Count = Annotated[int, Meta(ge=1, le=1_000_000_000, description="a whole number, 1 or more")]
CountOrOff = Annotated[int, Meta(ge=0, le=1_000_000_000, description="a whole number, 0 or more")]
Port = Annotated[int, Meta(ge=1, le=values.HIGHEST_PORT, description="a port number, 1 to 65535")]
Level = Annotated[int, Meta(ge=1, le=5, description="a level, 1 to 5")]
PreemptingLevel = Annotated[int, Meta(ge=1, le=4, description="a level, 1 to 4")]
Duration = Annotated[float, _read(values.duration, 'a string with a time, such as "30s" or "5m"')]
TimeSpan = Annotated[float, _read(values.time_span, 'a string with a time, such as "30s" or "5m"')]
HoldTime = Annotated[float, _read(values.hold_time, 'a string with a time, such as "30d"')]
MaxPause = Annotated[float, _read(values.pause, 'a string with a time, such as "30s"')]
Rate = Annotated[tuple[values.Rate, ...], _read(values.rates, 'a string with rates, such as "100/m; 10 MiB/h"')]
RateText = Annotated[str, _read(values.rate_text, 'a string with rates, such as "100/m; 10 MiB/h"')]
Size = Annotated[int, _read(values.size, 'a string with a size, such as "50 MiB"')]
Ports = Annotated[tuple[PortRange, ...], _read(values.ports, 'a string with ports, such as "25, 587, 1025-5000"')]
Interface = Annotated[str, _read(values.interface, "a string with an IP address")]
AnyNetwork = Annotated[Network, _read(values.network, 'a string with a network, such as "10.0.0.0/8"')]
NameServer = Annotated[Endpoint, _read(values.name_server, 'a string such as "127.0.0.1:53"')]
OptionalEndpoint = Annotated[Endpoint | None, _read(values.optional_endpoint, 'a string such as "127.0.0.1:8025", or empty')]
Webhook = Annotated[str, _read(values.webhook, 'a string such as "https://example.com/hook"')]
PublicURL = Annotated[str, _read(values.public_url, 'a string such as "https://mail.example.com"')]
Destination = Annotated[str, _read(values.destination, 'a string with a domain, ".domain" or "*"')]
Via = Annotated[str, _read(values.via, 'a string such as "mx" or "smtp://host:port"')]
Sources = Annotated[tuple[str, ...], _read(values.sources, 'a string with an IP address, such as "192.0.2.1"')]
HostName = Annotated[str, _read(values.host_name, "a string with a host name")]
OptionalMailbox = Annotated[str, _read(values.mailbox, "a string with a mail address, or empty")]
DatabaseURL = Annotated[str, _read(values.database, "a string with a database URL")]
Directory = Annotated[Path, Meta(description="a string, the path of a directory", extra={"path": "directory"})]


class Listen(Struct, frozen=True):
    """One [[listen]]: some ports on some interfaces, treated alike."""

    ports: Ports = values.ports("23, 25, 26, 587, 1025-5000")
    interfaces: tuple[Interface, ...] = ("0.0.0.0", "::")
    tls: Literal["starttls", "starttls-required", "implicit", "none"] = "starttls"
    auth_without_tls: Literal["never", "loopback", "always"] = "loopback"
    proxy_protocol_from: tuple[AnyNetwork, ...] = ()
    trusted_networks: tuple[AnyNetwork, ...] = ()
    trusted_as: Text = ""  # user name


class TLS(Struct, frozen=True):
    certificate: FilePath = ""  # absolute path, or "": self-signed
    private_key: FilePath = ""
    directory: Text = ""  # of more certificates, for clients that name a host; relative to the state directory
    minimum_version: Literal["1.2", "1.3"] = "1.2"


class Limits(Struct, frozen=True):
    message_size: Size = 50 * 1024**2  # octets
    recipients: Count = 1000  # per message
    messages_per_connection: CountOrOff = 0  # 0: no limit
    rate: CountOrOff = 0  # recipients per minute, of one user; 0: no limit
    quota: CountOrOff = 0  # recipients per day, of one user; 0: no limit
    per_user: RateText = ""  # what one user may send, as values.rates reads it; "": no more limits
    per_list: RateText = ""  # what all users of one list may send together
    connections: Count = 5000
    connections_per_client: Count = 100
    auth_failures_per_connection: Count = 3
    auth_failures_per_address: CountOrOff = 50  # per hour; 0: off
    bad_commands: Count = 20  # per connection; Postfix's smtpd_hard_error_limit
    junk_commands: Count = 100  # between two messages; Postfix's smtpd_junk_command_limit
    login: TimeSpan = 300.0  # seconds from the connection to the login: what RFC 5321 §4.5.3.2.7 gives a single command
    minimum_rate: Size = 500  # octets a second of message data; Postfix's smtpd_min_data_rate
    idle: TimeSpan = 300.0  # seconds, RFC 5321 §4.5.3.2.7
    grace: Duration = 30.0  # seconds for running transactions at SIGTERM


class Submission(Struct, frozen=True):
    fix_headers: Switch = True  # raw 8-bit header text becomes encoded words
    long_lines: Literal["accept", "refuse"] = "accept"  # lines over 1,000 octets with CRLF, RFC 5321 §4.5.3.1.6
    future_release: HoldTime = 2_592_000.0  # seconds that a client may have a message held; 0: not offered


class Senders(Struct, frozen=True):
    unauthorized: Literal["block", "alert"] = "block"
    require_verified: Switch = True
    verification: TimeSpan = 259_200.0  # seconds that a mailed token is good for


class Priority(Struct, frozen=True):
    order: Switch = True
    display: Switch = True
    default: Level = 3  # of mail that says none itself
    ceiling: Level = 1  # the highest that mail may have
    budget: CountOrOff = 0  # messages per hour at levels 1 and 2, of one user; 0: no limit
    preempting_levels: tuple[PreemptingLevel, ...] = (1, 2)  # 1 to n without a gap, in this order
    max_pause: MaxPause = 30.0  # seconds in all, per transfer
    aging: TimeSpan = 1800.0  # seconds per level


class Queue(Struct, frozen=True):
    retry: tuple[TimeSpan, ...] = (60.0, 300.0, 900.0, 1800.0, 3600.0, 7200.0, 14400.0)  # seconds; the last repeats; never empty
    warn_after: Duration = 14_400.0  # seconds; 0: never
    lifetime: TimeSpan = 432_000.0  # seconds
    postmaster: OptionalMailbox = ""  # has copies of bounces; as Postfix's bounce_notice_recipient, which is off too without notify_classes
    history: Duration = 604_800.0  # seconds; 0: none is kept
    minimum_free: Size = 64 * 1024**2  # octets


class Delivery(Struct, frozen=True):
    connections: Count = 100
    per_destination: Count = 20
    initial_per_destination: Count = 5  # as Postfix's initial_destination_concurrency
    reserved_for_preempting: CountOrOff = 4  # of `connections`, and fewer than these; queue.destination
    rate: Rate = ()  # of each destination: amount, seconds and unit; queue.rates
    mx_port: Port = 25
    messages_per_connection: Count = 100
    tls: Literal["none", "opportunistic", "required", "verify"] = "opportunistic"


class DNS(Struct, frozen=True):
    servers: tuple[NameServer, ...] = ()  # empty: the system's


class Route(Struct, frozen=True):
    """One [[route]]. `via` has an absolute path or a port where these belong to it; `password_file` is absolute or ""."""

    destination: Destination = "*"
    via: Via = "mx"
    username: Text = ""
    password_file: FilePath = ""
    tls: Literal["", "none", "opportunistic", "required", "verify"] = ""  # "": as [delivery] says
    source: Sources = ()  # IP addresses, at most one of each family


class Log(Struct, frozen=True):
    mail: Text = "mail.log"  # relative to the state directory; "-": standard output; "": off
    format: Literal["text", "json"] = "text"


class Alerts(Struct, frozen=True):
    from_: Text = msgspec.field(name="from", default="")  # "": smtpplus@ the host name
    to: tuple[Text, ...] = ()
    digest: Duration = 3600.0  # seconds
    webhook: Webhook = ""  # "": none
    webhook_secret_file: FilePath = ""


class HTTP(Struct, frozen=True):
    listen: OptionalEndpoint = ("127.0.0.1", 8025)  # None: off
    public_url: PublicURL = ""  # without a final slash


class Configuration(Struct, frozen=True):
    """All settings. Made with no arguments it holds the defaults."""

    hostname: HostName = ""  # made the machine's own name if empty
    state_directory: Directory = Path("/var/lib/smtpplus")
    database: DatabaseURL = ""  # see database_url
    listen: tuple[Listen, ...] = (Listen(),)
    tls: TLS = TLS()
    limits: Limits = Limits()
    submission: Submission = Submission()
    senders: Senders = Senders()
    priority: Priority = Priority()
    queue: Queue = Queue()
    delivery: Delivery = Delivery()
    dns: DNS = DNS()
    route: tuple[Route, ...] = (Route(),)
    log: Log = Log()
    alerts: Alerts = Alerts()
    http: HTTP = HTTP()

    def __post_init__(self) -> None:
        """Fill in what follows from the machine and from other options."""
        if not self.hostname:
            msgspec.structs.force_setattr(self, "hostname", socket.gethostname().lower() or "localhost")
        if not self.alerts.from_:
            msgspec.structs.force_setattr(self, "alerts", msgspec.structs.replace(self.alerts, from_=f"smtpplus@{self.hostname}"))

    def __repr__(self) -> str:
        """No more than the name: the database URL may hold a password."""
        return f"<Configuration of {self.hostname}>"


def database_url(configuration: Configuration) -> str:
    """The SQLAlchemy URL of the database: SQLite in the state directory unless `database` names another; psycopg 3 for PostgreSQL."""
    url = configuration.database
    if not url:
        return f"sqlite:///{configuration.state_directory / 'smtpplus.sqlite'}"
    return url.replace("postgresql://", "postgresql+psycopg://", 1) if url.startswith("postgresql://") else url
