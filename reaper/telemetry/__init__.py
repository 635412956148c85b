"""What is told while it runs: log, metrics, pages, messages to webhooks, words to the service manager."""
