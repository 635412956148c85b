"""Which record is meant, for everything that reads one."""

import click
from click.core import ParameterSource


def record_files(
    context: click.Context, parameter: click.Parameter, files: tuple[str, ...]
) -> tuple[str, ...]:
    """The files to read; in the environment, where `reaper run` finds its sinks too, - is its stdout."""
    told = context.get_parameter_source(parameter.name or "") is ParameterSource.ENVIRONMENT
    found = tuple(file for file in files if not (told and file == "-"))
    if not found:
        message = "Which record? Name its file, or set REAPER_AUDIT_LOG."
        raise click.UsageError(message)
    return found
