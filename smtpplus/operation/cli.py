"""The command line: one group whose commands live in modules of their own and are imported when they are called.

Exit status: 0 success, 1 refusal (what was asked cannot be done), 2 wrong usage, a faulty configuration among it. A refusal is one
sentence on standard error with its remedy, never a traceback. To add a command, name its module in `COMMANDS`; it finds what it needs
in `Operation`, passed with `@click.pass_obj`.
"""

from __future__ import annotations

import importlib
import io
import json
import os
import sys
import time
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any, Iterator, Sequence

import click

if TYPE_CHECKING:
    from pathlib import Path

    from rich.console import Console
    from sqlalchemy import Connection, Engine

    from smtpplus.config import Configuration
    from smtpplus.delivery.routing import Router

COMMANDS = {  # name: module and attribute
    "alerts": "smtpplus.operation.alerts:alerts",
    "check": "smtpplus.operation.checks:check",
    "completion": "smtpplus.operation.completion:completion",
    "config": "smtpplus.operation.configuration:config",
    "dkim": "smtpplus.operation.dkim:dkim",
    "doctor": "smtpplus.operation.doctor:doctor",
    "explain": "smtpplus.operation.explain:explain",
    "list": "smtpplus.operation.lists:list_",
    "queue": "smtpplus.operation.queues:queue",
    "render": "smtpplus.operation.render:render",
    "sender": "smtpplus.operation.senders:sender",
    "status": "smtpplus.operation.status:status",
    "stats": "smtpplus.operation.stats:stats",
    "top": "smtpplus.operation.top:top",
    "user": "smtpplus.operation.users:user",
    "who-may-send": "smtpplus.operation.checks:who_may_send",
}


class Refused(click.ClickException):
    """What was asked cannot be done; the sentence says why and what to do."""

    exit_code = 1


class NoDatabase(Refused):
    """There is nothing to read yet, and reading makes nothing."""

    def __init__(self, path: Path) -> None:
        super().__init__(
            f"There is no database {path} yet. The daemon makes it when it starts, and so does `smtpplus user add NAME`; "
            "if there should be one, look at state_directory and database in the configuration, or name another with --config."
        )


class FaultyConfiguration(click.ClickException):
    """The configuration has faults, one sentence each."""

    exit_code = 2

    def __init__(self, faults: list[str]) -> None:
        super().__init__("\n".join(faults))

    def show(self, file: Any = None) -> None:
        """Print the sentences as they are: each begins with its place."""
        click.echo(self.message, err=True)


class Operation:
    """What the commands share: the configuration and the database it names, opened when first needed."""

    def __init__(self, path: str | None) -> None:
        self._path = path

    @cached_property
    def configuration(self) -> Configuration:
        """The configuration; FaultyConfiguration."""
        from smtpplus.config import ConfigurationError, load, locate

        try:
            return load(locate(self._path))
        except ConfigurationError as error:
            raise FaultyConfiguration(error.faults) from None

    @cached_property
    def router(self) -> Router:
        """Where mail goes by the configuration."""
        from smtpplus.delivery.routing import Router

        return Router(self.configuration.route, mx_port=self.configuration.delivery.mx_port)

    @contextmanager
    def database(self, *, reading: bool = False) -> Iterator[Engine]:
        """The database, for commands of more than one transaction; it is made if there is none, unless they only read.

        Inside, AccountError and the database's errors become refusals, FieldError wrong usage.
        """
        from sqlalchemy import make_url
        from sqlalchemy.exc import SQLAlchemyError

        from smtpplus.accounts.fields import AccountError, FieldError
        from smtpplus.config import database_url
        from smtpplus.storage.engine import UnusableDatabase, create_engine, database_file, migrate, told

        url = database_url(self.configuration)
        try:
            path = database_file(url)
            if reading and path is not None and not path.exists():
                raise NoDatabase(path)
            migrate(url)
            engine = create_engine(url)
            try:
                yield engine
            finally:
                engine.dispose()
        except FieldError as error:
            raise click.UsageError(_sentence(str(error))) from None
        except AccountError as error:
            raise Refused(_sentence(str(error))) from None
        except UnusableDatabase as error:
            raise Refused(_sentence(str(error))) from None
        except (SQLAlchemyError, OSError, ImportError) as error:
            shown = make_url(url).render_as_string(hide_password=True)
            raise Refused(f"The database {shown} cannot be used: {told(error)}.") from None

    @contextmanager
    def transaction(self, *, reading: bool = False, making: bool | None = None) -> Iterator[Connection]:
        """A connection to the `database` in a transaction, committed at the end. `making`: whether a database is made if there is none;
        if that is not said, reading makes none."""
        engine = self.database(reading=reading if making is None else not making)
        with engine as opened, opened.connect().execution_options(reading=reading) as connection, connection.begin():
            yield connection


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."


def operator() -> str:
    """Who runs this command, for what is kept of who did what."""
    import getpass

    from smtpplus.mail.reply import printable

    try:
        name = printable(getpass.getuser())
    except (OSError, KeyError):  # an account without a name
        name = f"uid {os.getuid()}"
    return f"{name} at the command line"


def print_json(value: Any) -> None:
    """`value`, of what JSON knows, for programs."""
    click.echo(json.dumps(value, ensure_ascii=False, indent=2))


def console() -> Console:
    """Where tables for people are printed; into a file or a pipe nothing is cut."""
    from rich.console import Console

    plain = Console()
    return plain if plain.is_terminal else Console(width=240)


def date(at: float) -> str:
    """A time, in seconds since the epoch, for people."""
    return time.strftime("%Y-%m-%d %H:%M:%S %Z", time.localtime(at))


class _Commands(click.Group):
    """A group that imports a command's module when it is asked for it."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[cmd_name].partition(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command

    def main(self, args: Sequence[str] | None = None, *others: Any, **named: Any) -> Any:
        """Run a command; what cannot be shown or written is one sentence too."""
        given = sys.argv[1:] if args is None else [*args]
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="backslashreplace")
        try:
            if not all(_is_text(argument) for argument in given):
                click.echo("Error: an argument is no text in UTF-8; write it in UTF-8.", err=True)
                sys.exit(2)
            return super().main(given, *others, **named)
        except OSError as error:
            about = f"{error.filename} cannot be used" if error.filename else "the output cannot be written"
            click.echo(f"Error: {about}: {error.strerror or error}.", err=True)
            sys.exit(1)
        finally:
            _flush()


def _is_text(argument: str) -> bool:
    try:
        argument.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _flush() -> None:
    """Write what is left; where that fails it was told already, and the interpreter shall not try again."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


def need_output() -> None:
    """Refuse, before anything is changed, to make a password that could not be shown."""
    if sys.stdout is None:
        raise Refused("Standard output is closed, and a password that is made could not be shown. Nothing was changed; open it.")


@click.command(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--config", "path", metavar="FILE", help="The configuration; else SMTPPLUS_CONFIG, else /etc/smtpplus/smtpplus.toml.")
@click.version_option(package_name="smtpplus", prog_name="smtpplus")
@click.pass_context
def main(context: click.Context, path: str | None) -> None:
    """Operate smtpplus. The commands work on its database, whether the daemon runs or not; it notices within a second."""
    context.obj = Operation(path)
