"""A supervisor that is told to stop while it starts."""

import subprocess
import sys
from pathlib import Path

_TOLD_BETWEEN_FORK_AND_NOTE = """
import os, signal, sys, time
from watchllm.compose import supervisor as module
from watchllm.compose.children import StartFailed
from watchllm.configuration import load

forked = module.fork

def fork(*arguments):
    child = forked(*arguments)
    os.kill(os.getpid(), signal.SIGTERM)
    return child

module.fork = fork
supervisor = module.Supervisor("test", load({"home": sys.argv[1]}, {}))
try:
    supervisor.start(module.Role("slow", lambda given: time.sleep(60) or 0))
except StartFailed as error:
    print(error)
supervisor.stop_all()
"""


def test_a_child_that_was_just_forked_is_told_too(tmp_path: Path) -> None:
    # Within less than it waits for one to be ready.
    done = subprocess.run(
        [sys.executable, "-c", _TOLD_BETWEEN_FORK_AND_NOTE, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=20,
        check=True,
    )
    assert done.stdout == "stopped before it was up\n"
