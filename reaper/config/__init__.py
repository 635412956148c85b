"""The policy file: YAML to Settings, whole or not at all, every mistake with its line and column."""
