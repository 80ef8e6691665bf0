"""The forms of settings as texts: each function reads one, or raises ValueError saying what is expected."""

from collections.abc import Callable, Mapping
from typing import Any

ALLOW, REFUSE = "allow", "refuse"
OFF, SHADOW, ON = "off", "shadow", "on"
"""Modes of the semantic cache: not asked; asked and recorded, never served; served."""
HARD, ALERT = "hard", "alert"
"""What a budget that is spent does: it refuses, or it is only told."""
_MAX_TTL = 10 * 365 * 86_400
_MAX_MODEL = 256
_MAX_USD = 1e6
_LEAST_USD = 1e-9
_MAX_NETWORKS = 256
_MAX_NAMES = 1000
_LONGEST = 15


class InvalidSetting(ValueError):
    """A setting that does not exist or a value of the wrong form; the message says what is accepted. `name` is the
    setting's."""

    def __init__(self, message: str, name: str) -> None:
        super().__init__(message)
        self.name = name


def parsed(name: str, text: str, forms: Mapping[str, Callable[[str], Any]], defaults: object) -> Any:
    """The typed value of one setting; that of `defaults` for an empty text. Raises InvalidSetting."""
    form = forms.get(name)
    if form is None:
        raise InvalidSetting(f"unknown setting {name!r}; known settings: {', '.join(sorted(forms))}", name)
    if text == "":
        return getattr(defaults, name)
    try:
        return form(text)
    except ValueError as error:
        raise InvalidSetting(f"{name}={text}: {error}", name) from None


def text_of(value: object) -> str:
    """How a typed value is written, so that its form reads it again; empty for None. Raises TypeError for what no
    setting has."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, str):
        return value
    if isinstance(value, int | float):
        return str(int(value)) if value == int(value) else str(value)
    if isinstance(value, tuple) and all(isinstance(part, str) for part in value):
        return ",".join(value)
    raise TypeError(f"no setting has a value such as {type(value).__name__}")


def on_off(text: str) -> bool:
    if text not in ("on", "off"):
        raise ValueError("expected on or off")
    return text == "on"


def ttl(text: str) -> int:
    try:
        seconds = int(text)
    except ValueError:
        raise ValueError("expected whole seconds, 0 (never store) or -1 (never expires)") from None
    if not -1 <= seconds <= _MAX_TTL:
        raise ValueError(f"expected -1 (never expires), 0 (never store) or up to {_MAX_TTL} seconds")
    return seconds


def scope(text: str) -> str:
    if text not in ("project", "user"):
        raise ValueError("expected project or user")
    return text


def unpriced(text: str) -> str:
    if text not in (ALLOW, REFUSE):
        raise ValueError(f"expected {ALLOW} or {REFUSE}")
    return text


def mode(text: str) -> str:
    if text not in (OFF, SHADOW, ON):
        raise ValueError(f"expected {OFF}, {SHADOW} or {ON}")
    return text


def share(text: str) -> float:
    try:
        share = float(text)
    except ValueError:
        share = -1.0
    if not 0.0 <= share <= 1.0:  # NaN is not, either
        raise ValueError("expected a number from 0 to 1")
    return share


def model(text: str) -> str:
    if len(text) > _MAX_MODEL or not text.isascii() or not text.isprintable() or " " in text:
        raise ValueError("expected a model's name, such as groq/llama-3.1-8b-instant or sim/judge")
    return text


def whole(low: int, high: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not text.isdecimal() or not text.isascii() or not low <= int(text[:_LONGEST]) <= high:
            raise ValueError(f"expected a whole number from {low} to {high}")
        return int(text)

    return parse


def usd(text: str) -> float:
    try:
        usd = float(text)
    except ValueError:
        usd = -1.0
    if not 0.0 <= usd <= _MAX_USD:  # NaN is not, either
        raise ValueError(f"expected US dollars, 0 to {_MAX_USD:.0f}")
    if 0.0 < usd < _LEAST_USD:
        raise ValueError("expected US dollars, 0 or at least 0.000000001, in which costs are counted")
    return usd


def name(text: str) -> str:
    if not text.replace("-", "").replace("_", "").isalnum() or not text.isascii() or len(text) > 64:
        raise ValueError("expected a provider's name: letters, digits, - and _")
    return text


def names(text: str) -> tuple[str, ...]:
    names = tuple(part.strip() for part in text.split(",") if part.strip())
    if not names:
        raise ValueError("expected names separated by commas; * may stand for any characters")
    if len(names) > _MAX_NAMES:
        raise ValueError(f"expected at most {_MAX_NAMES} names")
    return names


def models(text: str) -> tuple[str, ...]:
    found = names(text)
    for name in found:
        if not _is_pattern(name):
            raise ValueError(
                f"{name!r} is no name of a model: write gpt-4o*,claude-*, or a list of such texts in JSON; * stands "
                "for any characters, ? for one, [ab] for one of these"
            )
    return found


def providers(text: str) -> tuple[str, ...]:
    return tuple(map(name, names(text)))


def _is_pattern(text: str) -> bool:
    if any(mark in text for mark in "\"'`{}") or not text.isprintable() or " " in text:
        return False
    opened, closed = text.find("["), text.find("]")
    if opened == 0:
        # A list that lost its quotes, or what a comma cut of one, would be one letter's name.
        return 1 < closed < len(text) - 1
    return closed == -1 or 0 < opened < closed


def budget_mode(text: str) -> str:
    if text not in (HARD, ALERT):
        raise ValueError(f"expected {HARD} or {ALERT}")
    return text


def networks(text: str) -> tuple[str, ...]:
    """Addresses and networks in CIDR form, as they are compared: `10.0.0.0/8`, `2001:db8::/32`, `192.0.2.7/32`."""
    from ipaddress import ip_network  # who reads settings from texts is no proxy

    found = []
    for part in filter(None, map(str.strip, text.split(","))):
        try:
            found.append(str(ip_network(part, strict=False)))
        except ValueError:
            raise ValueError(f"{part!r} is no IP address or network such as 192.0.2.7 or 10.0.0.0/8") from None
    if not found or len(found) > _MAX_NETWORKS:
        raise ValueError(f"expected 1 to {_MAX_NETWORKS} IP addresses or networks separated by commas")
    return tuple(found)
