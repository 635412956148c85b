"""The promises that only the real command can prove: its output, its exit codes, its signals, its crashes."""
