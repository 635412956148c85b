"""`reaper schema`: the policy file's JSON Schema."""

import json

import click

from reaper.config.model import json_schema


@click.command
def schema() -> None:
    """Print the JSON Schema of the policy file, for editors and CI."""
    click.echo(json.dumps(json_schema(), indent=2))
