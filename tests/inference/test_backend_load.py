"""A thousand requests, many of them given up: no slot is lost, nothing is forgotten or kept."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

WORKER = Path(__file__).parent / "load_worker.py"


@pytest.mark.parametrize("kind", ["torch", "llama.cpp"])
def test_a_thousand_requests_with_random_cancels(kind, tmp_path):
    done = subprocess.run(
        [sys.executable, str(WORKER), kind, str(tmp_path)],
        capture_output=True, text=True, timeout=900, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout.splitlines()[-1])
    assert seen["accepted"] == 1000
    assert seen["ends_per_request"] == {"1": 1000}
    assert set(seen["ends"]) == {"cancelled", "length", "stop"}
    assert min(seen["ends"].values()) > 20
    assert seen["refused"] > 0  # the queue was full at times
    assert seen["running"] == seen["waiting"] == 0
    assert seen["places_free"] == seen["slots"] == 4
    assert seen["wrong_answers"] == 0
    # The second half of the run must not need more memory than the first.
    assert seen["growth_mib"] < 4, seen
