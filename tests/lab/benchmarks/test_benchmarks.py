"""Every benchmark runs and prints a table; its figures are not tested."""

import subprocess
import sys

import pytest

from tests.lab.clients.sleepers import ROOT


@pytest.mark.parametrize(
    ("name", "title"),
    [
        ("cycle", "Cycle"),
        ("terminations", "Terminations"),
        ("lateness", "Lateness"),
        ("takeover", "Take-over"),
        ("fleet", "Fleet"),
        ("start", "Start"),
        ("memory", "Memory"),
        ("backtest", "Backtest"),
    ],
)
def test_a_benchmark_runs_at_the_smallest_scale(name: str, title: str) -> None:
    command = (sys.executable, "-m", "tests.lab", name, "--scale", "smoke")

    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=300)

    assert done.returncode == 0, done.stderr
    assert title in done.stdout
