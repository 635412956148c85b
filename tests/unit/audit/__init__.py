"""The promises of the record: whole lines, last before the act, and read back as they were."""
