"""Run a piece of code where no other test has set the backend, the threads or the seeds."""

import os
import subprocess
import sys


def in_a_new_process(code, **environment):
    """Return what the code prints; it can import the test files."""
    result = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **environment},
        cwd=os.path.dirname(__file__),
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()
