"""The forms that the text of a setting may have. Each reads one, and raises ValueError with the form expected."""

from __future__ import annotations

import os
from collections.abc import Callable


def plain(text: str) -> str:
    return text


def path(text: str) -> str:
    return os.path.abspath(os.path.expanduser(text))


def flag(text: str) -> bool:
    lowered = text.lower()
    if lowered in ("1", "true", "yes", "on"):
        return True
    if lowered in ("0", "false", "no", "off"):
        return False
    raise ValueError("true or false")


def port(text: str) -> int:
    if not _is_number(text) or int(text) > 65535:
        raise ValueError("a port number from 0 (any free port) to 65535")
    return int(text)


_MOST_COUNTED = 10**9


def count(text: str) -> int:
    if not _is_number(text) or not 1 <= int(text) <= _MOST_COUNTED:
        raise ValueError(f"a whole number from 1 to {_MOST_COUNTED}")
    return int(text)


_UNITS = {"": 1, "b": 1, "kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30, "kb": 10**3, "mb": 10**6, "gb": 10**9}
_LARGEST = 16 << 40
"""Bytes: what is mapped into memory has to fit into a process's addresses."""


def size(text: str) -> int:
    digits = text.rstrip("abgikmABGIKM ")
    factor = _UNITS.get(text[len(digits) :].strip().lower())
    if factor is None or not _is_number(digits) or not 1 <= int(digits) * factor <= _LARGEST:
        raise ValueError("a size such as 1048576, 32MiB or 1GiB, at most 16384GiB")
    return int(digits) * factor


def size_from_mib(text: str) -> int:
    """A size of at least 1 MiB."""
    found = size(text)
    if found < 1 << 20:
        raise ValueError("a size of at least 1MiB, such as 1048576, 32MiB or 1GiB")
    return found


def _is_number(text: str) -> bool:
    # Python refuses to read numbers of thousands of digits, with a message of its own.
    return text.isdecimal() and text.isascii() and len(text) <= 20


def seconds(text: str) -> float:
    value = _number(text)
    if not 0 < value <= 86_400:
        raise ValueError("seconds, more than 0 and at most 86400")
    return value


def moments(text: str) -> float:
    """Seconds for which every request may have to wait."""
    value = _number(text)
    if not 0.01 <= value <= 2:
        raise ValueError("seconds, from 0.01 to 2, such as 0.05")
    return value


def _number(text: str) -> float:
    """What is in no range where the text is none."""
    try:
        return float(text)
    except ValueError:
        return -1.0


def one_of(*words: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text not in words:
            raise ValueError(" or ".join(words))
        return text

    return parse


PERCENT_ENCODED = "marks in a password are percent-encoded there: / is %2F, # %23, ? %3F, @ %40"


def url(*schemes: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        scheme, separator, rest = text.partition("://")
        if not separator or scheme not in schemes or not rest or any(character.isspace() for character in text):
            raise ValueError(f"a URL that begins with {' or '.join(scheme + '://' for scheme in schemes)}")
        return text

    return parse


def base_url(text: str) -> str:
    return url("http", "https")(text).rstrip("/")


def embedder(text: str) -> str:
    kind, _, model = text.partition(":")
    if text != "static" and (kind not in ("openai", "fastembed") or not model):
        raise ValueError("static, openai:MODEL, openai:MODEL@BASE_URL or fastembed:MODEL_OR_FOLDER")
    if kind == "openai":
        _check_endpoint(model)
    return text


def _check_endpoint(text: str) -> None:
    """What is meant for a base URL and not taken for one would be part of a model's name, and prompts would go to
    OpenAI."""
    model, at, place = text.partition("@")
    expected = "openai:MODEL or openai:MODEL@BASE_URL, with http:// or https:// after the @"
    if not model or "://" in model or any(character.isspace() for character in text):
        raise ValueError(expected)
    if at:
        try:
            base_url(place)
        except ValueError:
            raise ValueError(expected) from None


def calibration(text: str) -> tuple[float, float]:
    """Slope and intercept."""
    try:
        slope, intercept = (float(part) for part in text.split(","))
    except ValueError:
        slope, intercept = 0.0, 0.0
    if not 0.0 < slope <= 1e6 or not -1e6 <= intercept <= 1e6:  # NaN is in no range
        raise ValueError("SLOPE,INTERCEPT, two numbers of which the first is above 0, such as 0.8,-1.5")
    return slope, intercept


def messages_base_url(text: str) -> str:
    """A base URL of Anthropic's dialect. Anthropic's own clients add `/v1` to theirs, so that the same variable holds a
    bare host for them; to such a one it is added here, too."""
    scheme, _, place = text.rstrip("/").partition("://")
    return f"{scheme}://{place}/v1" if "/" not in place else text.rstrip("/")


def listen_address(text: str) -> str:
    host, colon, port = text.rpartition(":")
    if not colon or not host or not _is_number(port) or int(port) > 65535:
        raise ValueError("HOST:PORT, such as 127.0.0.1:9464")
    return text


def networks(text: str) -> tuple[str, ...]:
    import ipaddress

    names = tuple(part.strip() for part in text.split(",") if part.strip())
    try:
        return tuple(str(ipaddress.ip_network(name)) for name in names)
    except ValueError:
        raise ValueError("addresses or networks separated by commas, such as 10.0.0.0/8,192.0.2.7") from None


def region(text: str) -> str:
    if len(text) > 64 or not text.isascii() or not text.replace("-", "").replace("_", "").isalnum():
        raise ValueError("up to 64 letters, digits, - and _")
    return text


def secret_key(text: str) -> str:
    if len(text) < 32:
        raise ValueError("at least 32 characters; `openssl rand -base64 32` makes one")
    return text
