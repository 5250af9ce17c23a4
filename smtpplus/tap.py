"""The composition root: `twistd smtpplus` begins here, and nobody else knows everyone.

Start: database and schema, what a crash left half received is purged, the queue is lined up, and then the ports open: nobody is served
before what was accepted earlier is in hand. Stop: the ports close, running transactions and transfers finish within
`[limits] grace`, what was handed in is committed, and only then the process ends.

A fault at start is one sentence on standard error, and nothing stays started: status 2 for the configuration, 1 for the rest.
"""

from __future__ import annotations

import gc
import os
import random
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError
from twisted.application import service
from twisted.internet.defer import Deferred, gatherResults, inlineCallbacks
from twisted.logger import Logger
from twisted.python import usage
from twisted.python.failure import Failure
from twisted.python.threadpool import ThreadPool

from smtpplus.accounts.allowances import load_allowances
from smtpplus.accounts.directory import Directory
from smtpplus.accounts.settings import server_settings
from smtpplus.config import Configuration, ConfigurationError, database_url, load, locate
from smtpplus.config.watch import FileWatch
from smtpplus.delivery.attempt import Delivery
from smtpplus.delivery.signing import Signer
from smtpplus.events import Events
from smtpplus.installed import reactor, road
from smtpplus.mail.budget import Budgets
from smtpplus.observation.assembly import Observation
from smtpplus.observation.maillog import MailLog
from smtpplus.observation.metrics import Depth
from smtpplus.operation.confirmation import confirmation
from smtpplus.operation.http import HTTPListenError, HTTPServer, Page
from smtpplus.operation.measures import Readiness, health, metrics
from smtpplus.queue.assembly import assemble
from smtpplus.queue.depth import depth
from smtpplus.queue.outbox import post
from smtpplus.storage import ownership
from smtpplus.storage.claim import Claim, ClaimError, settle_content
from smtpplus.storage.database import Database
from smtpplus.storage.engine import UnusableDatabase, content_directory, database_file, migrate, told
from smtpplus.storage.reserve import Reserve
from smtpplus.submission.checker import make_portal
from smtpplus.submission.listener import Dependencies, ListenError, SubmissionService
from smtpplus.submission.tls import CERTIFICATE, TLSError, server_tls

THREADS = 4  # that write files of local delivery
SWITCH = 0.0001  # seconds: how long the reactor may keep the interpreter from the writer that waits for it; Python's default is 0.005
YOUNG = 10_000  # objects that are made and not yet looked at by the collector; at Python's 700 it takes 14 % of a message's way


class Options(usage.Options):
    """What `twistd smtpplus` takes."""

    optParameters = [["config", "c", None, "The configuration file; else what SMTPPLUS_CONFIG names, else /etc/smtpplus/smtpplus.toml."]]

    configuration: Configuration
    path: Path

    def postOptions(self) -> None:
        """Read the configuration; its faults end the process with status 2 before anything is started."""
        try:
            self.path = locate(self["config"]).absolute()
            self.configuration = load(self.path)
        except ConfigurationError as error:
            for fault in error.faults:
                print(fault, file=sys.stderr)
            raise SystemExit(2) from None

    def owner(self) -> tuple[int | None, int | None]:
        """User and group that twistd is to run as; None where it does not say."""
        said: Mapping[str, int | None] = self.parent or {}
        return said.get("uid"), said.get("gid")


def makeService(options: Options) -> service.IService:
    """The relay as a service; `options` are parsed."""
    # Twisted's own clock is that on the wall: set back by an hour, nothing would happen for an hour. This one only goes forward.
    reactor.seconds = time.monotonic  # a static one, and never called without its reactor
    return Relay(options.configuration, options.path, options.owner())


class Relay(service.Service):
    """All of smtpplus in one process."""

    def __init__(self, configuration: Configuration, path: Path, owner: tuple[int | None, int | None] = (None, None)) -> None:
        self.name = "smtpplus"
        self._configuration = configuration
        self._path = path  # where it was read from
        self._owner = owner  # user and group to run as
        self._house: House | None = None

    def privilegedStartService(self) -> None:
        """Build the house and bind its ports, while twistd still may; say why not and end the process with status 1 if that fails."""
        service.Service.privilegedStartService(self)
        state = self._configuration.state_directory
        try:
            url = database_url(self._configuration)
            ownership.settle(state, 0o750, (database_file(url), content_directory(url)), *self._owner)
            self._house = House(self._configuration, self._path)
            self._house.submission.bind()
            if self._house.http is not None:
                self._house.http.bind()
        except (ListenError, HTTPListenError, TLSError, UnusableDatabase, ClaimError, SQLAlchemyError, OSError) as fault:
            print(f"smtpplus is not started: {told(fault)}.", file=sys.stderr)
            raise SystemExit(1) from None

    def startService(self) -> None:
        """Serve, as soon as the reactor runs."""
        service.Service.startService(self)
        if self._house is None:
            self.privilegedStartService()
        assert self._house is not None
        sys.setswitchinterval(SWITCH)
        gc.set_threshold(YOUNG)
        self._house.open()

    def stopService(self) -> Deferred[None] | None:
        """Fires when the work has stopped and all of it is committed."""
        service.Service.stopService(self)
        return self._house.close() if self._house is not None else None


class House:
    """The rooms of a running daemon, joined."""

    _log = Logger()

    def __init__(self, configuration: Configuration, path: Path) -> None:
        self._grace = configuration.limits.grace
        url = database_url(configuration)
        self._claim = Claim(url)
        migrate(url)
        settle_content(url)
        events = Events()
        self._mail_log = _mail_log(configuration)
        if self._mail_log is not None:
            events.subscribe(self._mail_log)
        self._database = Database(url, reactor, road)
        self._directory = Directory(self._database, reactor)
        self._watch = FileWatch(path, reactor, self._changed)
        self._threads = ThreadPool(0, THREADS, name="smtpplus-files")
        self._signer = Signer(self._database, reactor=reactor, threads=self._threads, now=time.time)
        self._delivery = _deliver(configuration, self._threads, self._signer)
        budgets = Budgets()
        self.queue = assemble(
            configuration=configuration,
            database=self._database,
            agent=self._delivery,
            destination=self._delivery.router.destination,
            clock=reactor,
            now=time.time,
            process=os.getpid(),
            events=events,
            allowances=lambda connection: load_allowances(connection, self._directory.server),
            counts={"budgets": budgets},
            promptly=road.promptly,
        )
        self._observation = _observe(configuration, self._database, events, self.queue.new_id, self._depth)
        self._reserve = Reserve(configuration.state_directory, configuration.queue.minimum_free, time.monotonic)
        self._readiness = Readiness(self._database, reactor, now=time.time, looks=(self._room, self._ports))
        measured = {"metrics": metrics(self._observation.measures), "readyz": self._readiness.page()}
        self.http = _http_server(configuration, self._database, events, measured)
        self.submission = SubmissionService(
            Dependencies(
                configuration=configuration,
                events=events,
                portal=make_portal(self._directory, configuration, events, time.time),
                spool=self.queue.spool,
                new_id=self.queue.new_id,
                tls=server_tls(configuration, time.time()),
                reactor=reactor,
                full=self._reserve.short,
                budgets=budgets,
            )
        )

    def _depth(self, connection: Connection) -> Depth:
        """What is in the queue, level by level."""
        levels = depth(connection, self._delivery.router.destination, time.time())
        return [(number, level.count, level.held, level.since) for number, level in levels.items()]

    def open(self) -> None:
        """Begin to serve. Rows that a crash left half received are purged first: the writer takes work in order."""
        self._database.start()
        self._threads.start()
        self._directory.start()
        self._signer.start()
        self._watch.start()
        self._observation.watchdog.skipped = lambda: self.submission.skipped
        if (log := self._mail_log) is not None:
            self._observation.watchdog.unwritten = lambda: log.fault
        self._observation.start()
        self.queue.spool.purge().addErrback(self._broken, "what was half received cannot be removed")
        self.queue.start().addCallbacks(self._ready, self._broken, errbackArgs=("the queue cannot be read",))
        self.queue.outbox.start()
        self.submission.startService()
        signal.signal(signal.SIGHUP, lambda *_: reactor.callFromThread(self.submission.reload))
        gc.collect()
        gc.freeze()  # what stands now stands for good: the collector need not look at it again

    @inlineCallbacks
    def close(self) -> Any:
        """Let what runs finish, and commit it."""
        self._readiness.why_not = "it is stopping"
        if self.http is not None:
            yield self.http.stop()
        yield self.queue.outbox.stop()
        yield gatherResults([self.submission.stopService(), self.queue.stop(self._grace)])
        self._watch.stop()
        self._signer.stop()
        yield self._delivery.stop()
        yield self._observation.close()
        yield self._database.stop()
        self._claim.release()
        self._directory.stop()
        self._threads.stop()
        if self._mail_log is not None:
            self._mail_log.close()

    def _changed(self, configuration: Configuration) -> None:
        """The configuration file was changed: what users inherit from it is in force now."""
        self._directory.server = server_settings(configuration)
        self.queue.watch.again()
        self._log.info("the configuration was changed: what users inherit is in force now, everything else from the next start on")

    def _room(self) -> str:
        """Why no message is taken for want of room, or ""."""
        return "less is free in the state directory than [queue] minimum_free" if self._reserve.short() else ""

    def _ports(self) -> str:
        """Why nobody can connect, or ""."""
        ports = self.submission.ports
        return "" if ports and all(port.connected for port in ports) else "not all ports are open"

    def _ready(self, _: object) -> None:
        """The queue is lined up."""
        if self._readiness.why_not == "it is starting":
            self._readiness.why_not = ""

    def _broken(self, failure: Failure, what: str) -> None:
        self._log.failure("{what}", failure, what=what)


def _post(connection: Connection, content: bytes, recipients: Sequence[str]) -> None:
    """Put mail of our own into the queue."""
    post(connection, content, recipients, now=time.time())


def _observe(
    configuration: Configuration, database: Database, events: Events, new_id: Callable[[], int], depth: Callable[[Connection], Depth]
) -> Observation:
    """Those who watch."""
    return Observation(
        configuration,
        database=database,
        events=events,
        reactor=reactor,
        now=time.time,
        post=_post,
        depth=depth,
        new_id=new_id,
        certificate=Path(configuration.tls.certificate or configuration.state_directory / CERTIFICATE),
    )


def _deliver(configuration: Configuration, threads: ThreadPool, signer: Signer) -> Delivery:
    """Those who deliver."""
    return Delivery(
        configuration=configuration,
        reactor=reactor,
        threads=threads,
        random=random.SystemRandom(),
        own=_own_ports(configuration),
        signer=signer,
        favour=road.favour,
    )


def _mail_log(configuration: Configuration) -> MailLog | None:
    if not configuration.log.mail:
        return None
    path = None if configuration.log.mail == "-" else Path(configuration.state_directory, configuration.log.mail)
    return MailLog(path, configuration.log.format, reactor, time.time)


def _http_server(configuration: Configuration, database: Database, events: Events, measured: dict[str, Page]) -> HTTPServer | None:
    if configuration.http.listen is None:
        return None
    pages = {"healthz": health(), "confirm": confirmation(database, configuration.hostname, events), **measured}
    return HTTPServer(configuration.http.listen, pages, reactor)


def _own_ports(configuration: Configuration) -> set[tuple[str, int]]:
    """Where we ourselves can be reached, so that no mail goes round in circles."""
    return {
        (interface, port)
        for listen in configuration.listen
        for interface in listen.interfaces
        for ports in listen.ports
        for port in range(ports.first, ports.last + 1)
    }
