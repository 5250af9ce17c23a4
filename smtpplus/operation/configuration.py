"""`smtpplus config`: what is wrong with the configuration, and what is allowed but seldom meant."""

from __future__ import annotations

import click

from smtpplus.operation.cli import FaultyConfiguration, Operation, Refused, print_json


@click.group()
def config() -> None:
    """The configuration."""


@config.command()
@click.option("--json", "as_json", is_flag=True, help='Print {"faults": […], "warnings": […]}.')
@click.pass_obj
def check(operation: Operation, as_json: bool) -> None:
    """Say what is wrong, one sentence for each fault; and warn of what is allowed but seldom meant, with exit status 0."""
    try:
        hostname = operation.configuration.hostname
    except FaultyConfiguration as error:
        if as_json:
            print_json({"faults": error.message.split("\n")})
            raise click.exceptions.Exit(FaultyConfiguration.exit_code) from None
        raise
    warnings = _warnings(operation)
    if as_json:
        print_json({"faults": [], "warnings": warnings})
        return
    for each in warnings:
        click.echo(f"Warning: {each}.", err=True)
    click.echo(f"The configuration of {hostname} {'can be used' if warnings else 'is in order'}.")


def _warnings(operation: Operation) -> list[str]:
    """What the options say of one another, and what they name that is not there, as far as the database tells."""
    from smtpplus.config.doubts import doubts
    from smtpplus.operation import health

    found = list(doubts(operation.configuration))
    try:
        with operation.transaction(reading=True) as connection:
            looked = list(health.trusted(operation.configuration, connection))
    except Refused:  # there is none yet, or it is not ours to read: the doctor tells
        return found
    return found + [f"listen.trusted_as: {each.text}; {each.remedy}" for each in looked if not each.good]
