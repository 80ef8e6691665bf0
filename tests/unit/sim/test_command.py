"""`watchllm sim`: starts, says where, ends on SIGTERM, and tells wrong usage from failure."""

import json
import re
import signal
import subprocess
import sys
import urllib.request

import pytest
import typer
from typer.testing import CliRunner

from tests.support.ports import free_port
from watchllm.cli.sim import register

PROGRAM = "import typer; from watchllm.cli.sim import register; app = typer.Typer(); register(app); app()"


def test_it_says_where_it_listens_answers_with_its_flags_and_ends_on_sigterm() -> None:
    command = [sys.executable, "-c", PROGRAM, "--port", "0", "--tokens", "7", "--latency", "1ms"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            found = re.search(r"http://[\d.]+:\d+/v1", process.stderr.readline())
            assert found
            body = {"model": "gpt-4o", "messages": [{"role": "user", "content": "Hi"}]}
            with urllib.request.urlopen(
                f"{found[0]}/chat/completions", json.dumps(body).encode(), timeout=20
            ) as answer:
                assert json.load(answer)["usage"]["completion_tokens"] == 7
        finally:
            process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0


@pytest.mark.parametrize(
    "arguments",
    [["--latency", "fast"], ["--chunk-time", "5"], ["--status", "42"], ["--error-rate", "3"], ["--tokens", "-1"]],
)
def test_wrong_usage_is_exit_2(arguments: list[str]) -> None:
    app = typer.Typer()
    register(app)
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 2
    assert arguments[0] in result.output


def test_a_port_in_use_is_exit_1_with_what_to_do() -> None:
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", free_port()))
        taken.listen()
        app = typer.Typer()
        register(app)
        result = CliRunner().invoke(app, ["--port", str(taken.getsockname()[1])])
    assert result.exit_code == 1
    assert "--port" in result.output
