"""The policy file: YAML to Settings, whole or not at all, every mistake with its line and column.

The law of this floor: it reads the policy file and the files that it names, each once, and knows no server.
The way through it: syntax (bytes to events), nodes (a tree that knows its places), document (plain data),
shapes (models), lists and addresses (what the file names beside itself), sense (mistakes that no schema
sees), compile (the rules of the policy floor).
"""

from reaper.config.load import load, read
from reaper.config.mistakes import BadPolicyFile, Mistake
from reaper.config.settings import Server, Settings
from reaper.config.stamps import Stamp, stamp
from reaper.config.webhooks import Occasion, Webhook

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
