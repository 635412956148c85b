"""Metrics for Prometheus: `collect` counts, `catalogue` names, `exposition` writes the page."""
