"""`smtpplus config`: what is wrong with the configuration."""

from __future__ import annotations

import click

from smtpplus.operation.cli import FaultyConfiguration, Operation, print_json


@click.group()
def config() -> None:
    """The configuration."""


@config.command()
@click.option("--json", "as_json", is_flag=True, help='Print {"faults": […]}.')
@click.pass_obj
def check(operation: Operation, as_json: bool) -> None:
    """Say what is wrong, one sentence for each fault."""
    try:
        hostname = operation.configuration.hostname
    except FaultyConfiguration as error:
        if as_json:
            print_json({"faults": error.message.split("\n")})
            raise click.exceptions.Exit(FaultyConfiguration.exit_code) from None
        raise
    if as_json:
        print_json({"faults": []})
    else:
        click.echo(f"The configuration of {hostname} is in order.")
