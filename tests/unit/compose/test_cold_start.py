"""What a starting proxy imports before its first cached answer: every module there is time that a start takes."""

import subprocess
import sys

_NOT_NEEDED = {
    "dataclasses": "half a millisecond, and as much again for every dataclass",
    "pathlib": "takes urllib and ipaddress along",
    "random": "request ids come from the system",
    "tempfile": "takes shutil and random along",
    "json": "msgspec reads and writes JSON",
    "watchllm.proxy.miss": "an answer from the cache calls nobody",
    "watchllm.proxy.slots": "an answer from the cache calls nobody",
    "watchllm.wire.client": "an answer from the cache calls nobody",
    "watchllm.providers.tokens": "an answer from the cache has been counted",
    "numpy": "the semantic cache loads it, like the next two, when the socket listens",
    "faiss": "40 ms",
    "tokenizers": "10 ms",
    "watchllm.sim": "loads when it is asked first",
}


def test_the_way_to_the_first_hit_imports_only_what_it_needs() -> None:
    code = (
        "import sys, asyncio, uvloop, httptools; before = set(sys.modules);"
        "import watchllm.__main__, watchllm.cli.fast_start, watchllm.compose.proxy;"
        "print(*set(sys.modules) - before)"
    )
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd="/").stdout
    loaded = set(output.split())
    assert "watchllm.compose.proxy" in loaded
    assert loaded & _NOT_NEEDED.keys() == set()
