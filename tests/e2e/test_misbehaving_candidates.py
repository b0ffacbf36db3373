"""One bad candidate cannot hurt the search: each kind of failure is a trial with its reason, and the rest is found."""

import json
import subprocess
import sys
from pathlib import Path

PROGRAM = Path(__file__).with_name("misbehaving_search.py")
REASONS = {
    (1, 3): "SIGSEGV",
    (1, 5): "memory",
    (2, 3): "timeout: no result within 2 s",
    (2, 5): "nan: the loss is NaN",
}


def test_every_architecture_ends_in_a_value_or_in_its_own_reason(tmp_path):
    run = subprocess.run([sys.executable, PROGRAM, tmp_path], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    report = json.loads(run.stdout.splitlines()[-1])
    assert "every architecture" in report["ended"]
    assert len(report["trials"]) == 48
    failed = 0
    for state, choices, reason in report["trials"]:
        expected = REASONS.get((choices["depth"], choices["kernel"])) if choices["width"] == 4 else None
        assert state == ("failed" if expected else "complete"), (choices, reason)
        if expected:
            failed += 1
            assert expected in reason
    assert failed == 16
