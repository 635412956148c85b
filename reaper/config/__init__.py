"""The policy file: YAML to Settings, completely or not at all, every mistake with its line and column.

The law of this package: it reads the policy file and the files that it names, each once, and knows no server.
The path: `yaml_tree` (bytes to plain data with places), `validation` and `model` (pydantic), `files` (what
the policy file names), `checks` (mistakes that no schema sees), `loader` (Settings).
"""

from reaper.config.errors import BadPolicyFile, Mistake
from reaper.config.files import Stamp, stamp
from reaper.config.loader import load, read
from reaper.config.settings import Occasion, Server, Settings, Webhook

__all__ = [
    "BadPolicyFile",
    "Mistake",
    "Occasion",
    "Server",
    "Settings",
    "Stamp",
    "Webhook",
    "load",
    "read",
    "stamp",
]
