"""`reaper schema`: the policy file's JSON Schema."""

import json

import click

from reaper.config import schema as policy_schema


@click.command(short_help="Print the JSON Schema of the policy file.")
def schema() -> None:
    """Print the JSON Schema of the policy file, for editors and CI."""
    click.echo(json.dumps(policy_schema(), indent=2))
