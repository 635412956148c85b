"""What a running service reports: log, metrics, HTTP pages, webhooks, systemd. It decides nothing."""
