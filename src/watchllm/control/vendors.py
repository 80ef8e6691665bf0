"""Reads `providers/vendors.toml`, the OpenAI-compatible providers as data, into the snapshot's records."""

import tomllib
from functools import cache
from importlib.resources import files

import msgspec

from watchllm.domain.snapshot import Vendor


class _Row(msgspec.Struct, forbid_unknown_fields=True):
    base_url: str
    env_prefix: str = ""
    families: tuple[str, ...] = ()
    auth_header: str = "authorization"
    auth_scheme: str = "Bearer"
    defaults: dict[str, dict[str, object]] = {}
    nullable: dict[str, tuple[str, ...]] = {}
    stream_usage: bool = True
    dialects: tuple[str, ...] = ("chat",)
    fetch_images: bool = False
    aliases: dict[str, str] = {}


@cache
def vendors() -> tuple[Vendor, ...]:
    """All vendors, in the order of the file. A row of the wrong form is a bug of ours: it raises ValidationError."""
    text = files("watchllm.providers").joinpath("vendors.toml").read_text(encoding="utf-8")
    rows = msgspec.convert(tomllib.loads(text), dict[str, _Row])
    return tuple(Vendor(name=name, **msgspec.structs.asdict(row)) for name, row in rows.items())


def names() -> tuple[str, ...]:
    return tuple(vendor.name for vendor in vendors())
