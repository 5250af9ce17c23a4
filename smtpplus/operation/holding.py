"""`smtpplus queue` hold, pause, release and resume: rules are made and lifted; queue.rules says what they mean."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from smtpplus.operation import absent
from smtpplus.operation.cli import Operation, Refused, date, operator, print_json
from smtpplus.operation.listing import meant, parse_span, rule_json
from smtpplus.operation.selectors import everything, named, selection, selectors, view_of

if TYPE_CHECKING:
    from smtpplus.queue.rules import Rule, Running

_json = click.option("--json", "as_json", is_flag=True, help="Print the rules as JSON for programs.")


def _holding(command: Callable[..., None]) -> Callable[..., None]:
    for option in (
        _json,
        click.option("--count-time", is_flag=True, help="Let the time on hold count toward the lifetime of messages."),
        click.option("--reason", metavar="TEXT", default="", help="Why; kept with it."),
        click.option("--for", "lasting", metavar="TIME", help='End by itself after this time, such as "2h".'),
        everything,
        selectors,
    ):
        command = option(command)
    return command


@click.command()
@_holding
@click.pass_obj
def hold(operation: Operation, /, **given: Any) -> None:
    """Let mail wait: nothing of what is selected starts, now or later, until `release`. What is under way finishes."""
    _hold(operation, "finish", **given)


@click.command()
@_holding
@click.pass_obj
def pause(operation: Operation, /, **given: Any) -> None:
    """As `hold`, and what is under way stops too, for `[priority] max_pause` at most."""
    _hold(operation, "stop", **given)


def _hold(
    operation: Operation, running: Running, *, lasting: str | None, reason: str, count_time: bool, all_: bool, as_json: bool, **texts: Any
) -> None:
    """Make rules, one for each value of the one kind that is named."""
    from smtpplus.queue import rulebook

    chosen = named(texts, all_=all_)
    if len({kind for kind, _ in chosen}) != 1:
        raise click.UsageError("A rule selects by one thing: name selectors of one kind, or --all.")
    seconds = 0.0 if lasting is None else parse_span(lasting)
    if lasting is not None and not seconds:
        raise click.UsageError("--for: a rule that ends at once holds nothing; without --for it lasts until it is lifted.")
    now = time.time()
    made: list[Rule] = []
    with operation.transaction() as connection:
        lost = absent.missing(connection, selection(texts).ids)
        if lost:
            raise Refused(f"{absent.gone(lost)} No rule was made.")
        notes = absent.absent(operation, connection, view_of(operation, connection)[0], chosen)
        for kind, value in chosen:
            rule = rulebook.add(
                connection,
                kind,
                value,
                running=running,
                reason=reason,
                who=operator(),
                now=now,
                lasting=seconds,
                keep_expiry=count_time,
                lifetime=operation.configuration.queue.lifetime,
            )
            made.append(rule)
    if as_json:
        print_json({"rules": [rule_json(rule) for rule in made]})
    else:
        for rule in made:
            click.echo(f"Rule {rule.id} holds {meant(rule)}" + (f" until {date(rule.expires_at)}." if seconds else " until it is lifted."))
    for note in notes:
        click.echo(f"Note: {note}. The rule holds what comes.", err=True)


def _lifting(command: Callable[..., None]) -> Callable[..., None]:
    rule = click.option("--rule", "numbers", type=int, multiple=True, metavar="NUMBER", help="A rule, by its number. May be repeated.")
    return rule(everything(selectors(_json(command))))


@click.command()
@_lifting
@click.pass_obj
def release(operation: Operation, /, **given: Any) -> None:
    """End rules made by `hold` or `pause`; --all ends the one on everything."""
    _lift(operation, **given)


@click.command()
@_lifting
@click.pass_obj
def resume(operation: Operation, /, **given: Any) -> None:
    """The same as `release`."""
    _lift(operation, **given)


def _lift(operation: Operation, *, numbers: tuple[int, ...], all_: bool, as_json: bool, **texts: Any) -> None:
    from smtpplus.queue import rulebook

    wanted = named(texts, all_=all_)
    if not wanted and not numbers:
        raise click.UsageError("Name the rule by --rule, by the selector it was made with, or by --all.")
    now = time.time()
    with operation.transaction() as connection:
        rules = rulebook.in_force(connection, now)
        ending = [rule for rule in rules if rule.id in numbers or (rule.kind, rule.value) in wanted]
        missing = [f"--rule {number}" for number in numbers if number not in {rule.id for rule in ending}]
        missing += [
            f"{kind} {value}".rstrip() for kind, value in wanted if (kind, value) not in {(rule.kind, rule.value) for rule in ending}
        ]
        if missing:
            raise Refused(f"There is no such rule: {', '.join(missing)}; `smtpplus queue list` shows those in force.")
        rulebook.lift(connection, [rule.id for rule in ending], who=operator(), now=now)
    if as_json:
        print_json({"lifted": [rule_json(rule) for rule in ending]})
        return
    for rule in ending:
        click.echo(f"Rule {rule.id} on {meant(rule)} is lifted.")
