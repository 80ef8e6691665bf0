"""Reads `providers/vendors.toml`, the providers as data, into the snapshot's records."""

import tomllib
from functools import cache
from importlib.resources import files
from typing import Literal

import msgspec

from watchllm.domain.snapshot import Vendor

_NO_PRICES = "-"


class _Row(msgspec.Struct, forbid_unknown_fields=True):
    base_url: str = ""
    env_prefix: str = ""
    families: tuple[str, ...] = ()
    auth_header: str = "authorization"
    auth_scheme: str = "Bearer"
    defaults: dict[str, dict[str, object]] = {}
    nullable: dict[str, tuple[str, ...]] = {}
    stream_usage: bool = True
    dialects: tuple[Literal["chat", "messages", "responses"], ...] = ("chat",)
    fetch_images: bool = False
    aliases: dict[str, str] = {}
    needs_base_url: bool = False
    key_optional: bool = False
    price_book: str = ""


@cache
def vendors() -> tuple[Vendor, ...]:
    """All vendors, in the order of the file. A row of the wrong form is a bug of ours: it raises ValidationError."""
    return tuple(
        Vendor(name, **{field: value for field, value in msgspec.structs.asdict(row).items() if field != "price_book"})
        for name, row in _rows().items()
    )


def price_books() -> dict[str, str]:
    """What the price book calls each vendor; those that it has no prices of are absent."""
    return {name: row.price_book or name for name, row in _rows().items() if row.price_book != _NO_PRICES}


def by_name() -> dict[str, Vendor]:
    return {vendor.name: vendor for vendor in vendors()}


def names() -> tuple[str, ...]:
    return tuple(vendor.name for vendor in vendors())


@cache
def _rows() -> dict[str, _Row]:
    text = files("watchllm.providers").joinpath("vendors.toml").read_text(encoding="utf-8")
    return msgspec.convert(tomllib.loads(text), dict[str, _Row])
