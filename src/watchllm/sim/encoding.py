"""Content encodings that the simulator applies unasked, as some real providers do."""

import zlib
from collections.abc import Callable
from typing import NamedTuple

_WBITS = {"gzip": 31, "deflate": 15}


class Encoder(NamedTuple):
    """`feed` gives bytes that decode at once to what was fed; `end` closes the stream."""

    feed: Callable[[bytes], bytes]
    end: Callable[[], bytes]


def encoder(name: str) -> Encoder:
    """An encoder for `gzip`, `deflate`, `br` or `zstd`; their packages load when first asked for."""
    if name in _WBITS:
        deflater = zlib.compressobj(wbits=_WBITS[name])
        return Encoder(lambda data: deflater.compress(data) + deflater.flush(zlib.Z_SYNC_FLUSH), deflater.flush)
    if name == "br":
        import brotli

        packer = brotli.Compressor(quality=4)
        return Encoder(lambda data: packer.process(data) + packer.flush(), packer.finish)
    if name == "zstd":
        import zstandard

        writer = zstandard.ZstdCompressor().compressobj()
        return Encoder(
            lambda data: writer.compress(data) + writer.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK), writer.flush
        )
    raise ValueError(f"unknown content encoding {name!r}")


def encode(name: str, data: bytes) -> bytes:
    """The whole of `data` in content encoding `name`."""
    feed, end = encoder(name)
    return feed(data) + end()
