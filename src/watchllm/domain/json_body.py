"""Reading a request's JSON, strictly: what is accepted here means the same to every JSON parser there is.

Bodies are refused that parsers disagree on, because the cache would see another request than the provider does:
repeated keys (which of the two counts?), NaN, lone surrogates, numbers that overflow, text that is not UTF-8. Integral
numbers become exact `int`s whatever their spelling (`1.0`, `1e2`), so that equal numbers are equal values.
"""

import math
from contextlib import suppress
from typing import Any

import msgspec

from watchllm.domain.errors import BadRequest, WireRefusal
from watchllm.domain.json_work import NumberBudget, check_work

MAX_DEPTH = 128
"""Levels of objects and arrays, the outermost included."""

LARGE = 64 * 1024
"""Bytes up to which no body is too much work, whatever it holds: 40 ms for the worst."""


def parse(body: bytes) -> dict[str, Any]:
    """The object that `body` holds; about 2 µs for 500 bytes.

    Raises BadRequest: `invalid_json` for all that is not strict JSON (the message says what and where), for more than
    MAX_DEPTH levels and for repeated keys; `invalid_request` for a document that is not an object. Raises WireRefusal
    (413) for a body that would hold up everyone else: see `json_work`.
    """
    try:
        document = _decode(body) if len(body) <= LARGE else _decode_large(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, _OutOfRange) as error:
        raise _refusal(body, error) from None
    # A document cannot be deeper than the brackets it has: most bodies need no look at their depth.
    if body.count(b"{") + body.count(b"[") > MAX_DEPTH:
        _check_depth(document)
    if type(document) is not dict:
        raise BadRequest(f"The body must be a JSON object, not {_KINDS[type(document)]}.")
    # Of a repeated key the decoder keeps the last member. Each member dropped so takes at least its own colon along,
    # and nothing adds colons: strings keep theirs, the encoder escapes none, and a colon that is hidden in an escape
    # (`\u003a`), which would come out as one more, sends the body to the exact check. So equal counts prove that no
    # member was dropped.
    if body.count(b":") != _encode(document).count(b":") or (b"\\" in body and b"\\u003" in body):
        _check_repeats(body)
    return document


class _OutOfRange(Exception):
    """A number whose spelling, the argument, has no finite value or is absurdly long."""


# The longest spelling of a double that is written out exactly has 767 significant digits; beyond this bound a number is
# an attack on whoever has to convert it.
_MAX_NUMBER_LENGTH = 1100


def _number(spelling: str) -> int | float:
    """A number with a fraction or an exponent: an exact int where it is integral, else the nearest double."""
    value = float(spelling)
    if value.is_integer():
        # Up to 15 significant digits, two different decimals are two different doubles: the double tells all.
        if len(spelling) <= 16 and -1e15 < value < 1e15:
            return int(value)
        return _exact(spelling, value)
    if math.isinf(value) or len(spelling) > _MAX_NUMBER_LENGTH:
        raise _OutOfRange(spelling)
    return value


def _exact(spelling: str, value: float) -> int | float:
    if len(spelling) > _MAX_NUMBER_LENGTH:
        raise _OutOfRange(spelling)
    if value == 0.0:
        return 0
    mantissa, _, exponent = spelling.lower().partition("e")
    whole, _, fraction = mantissa.partition(".")
    shift = int(exponent or "0") - len(fraction)
    digits = int(whole + fraction)
    if shift >= 0:
        return int(digits * 10**shift)
    quotient, remainder = divmod(digits, 10**-shift)
    return value if remainder else int(quotient)


def _decode_large(body: bytes) -> Any:
    try:
        check_work(body)
    except WireRefusal:
        # A million brackets without end are not many values but too many levels: the beginning tells. Cut as it is,
        # it is never a document.
        with suppress(msgspec.DecodeError, UnicodeDecodeError, _OutOfRange):
            _decode(body[:LARGE])
        raise
    return msgspec.json.Decoder(float_hook=NumberBudget(_number).read).decode(body)


_decode = msgspec.json.Decoder(float_hook=_number).decode
_encode = msgspec.json.Encoder().encode

_KINDS: dict[type, str] = {
    list: "an array",
    str: "a string",
    int: "a number",
    float: "a number",
    bool: "a boolean",
    type(None): "null",
}


def _invalid(reason: str) -> BadRequest:
    return BadRequest(reason, code="invalid_json")


def _too_deep() -> BadRequest:
    return _invalid(f"The body nests objects and arrays deeper than {MAX_DEPTH} levels.")


def _check_depth(document: Any) -> None:
    level = [document]
    for _ in range(MAX_DEPTH):
        level = [
            child
            for node in level
            for child in (node.values() if type(node) is dict else node)
            if type(child) is dict or type(child) is list
        ]
        if not level:
            return
    raise _too_deep()


def _check_repeats(body: bytes) -> None:
    import json
    from collections import Counter

    def members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        seen = dict(pairs)
        if len(seen) != len(pairs):
            # Not by counting each name: an object of a million keys must not cost the square of that.
            repeated = next(name for name, times in Counter(name for name, _ in pairs).items() if times > 1)
            raise _invalid(f"The body repeats the key {_excerpt(repeated)} in one object; each key may appear once.")
        return seen

    json.loads(body, object_pairs_hook=members)


def _excerpt(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:60] + "…")


def _refusal(body: bytes, error: Exception) -> BadRequest:
    """Say in the client's terms what the decoder refused, and at which byte."""
    if isinstance(error, RecursionError):
        return _too_deep()
    if isinstance(error, _OutOfRange):
        spelling = str(error)
        return _invalid(
            f"The number {spelling[:40]} at byte {body.find(spelling.encode())} is out of the range of a 64-bit float."
        )
    if not body.strip():
        return _invalid("The body is empty; send a JSON object.")
    if body.startswith(b"\xef\xbb\xbf"):
        return _invalid("The body begins with a byte order mark; send UTF-8 without one.")
    try:
        text = body.decode()
    except UnicodeDecodeError as undecodable:
        start = undecodable.start
        return _invalid(f"The body is not UTF-8: byte 0x{body[start]:02x} at offset {start} does not belong there.")
    if isinstance(error, msgspec.ValidationError):
        return _invalid("The body holds an integer of more than 4,300 digits, which is out of range.")
    surrogate = _lone_surrogate(text)
    if surrogate is not None:
        return _invalid(f"The body holds half of a surrogate pair (\\u{surrogate[1]}) at character {surrogate[0]}.")
    reason = str(error).removeprefix("JSON is malformed: ")
    hint = "" if not _names_nan(body, reason) else "; NaN and Infinity are not JSON, leave the field out"
    return _invalid(f"The body is not valid JSON: {reason[:1].lower()}{reason[1:]}{hint}.")


def _lone_surrogate(text: str) -> tuple[int, str] | None:
    """Where an escaped half of a surrogate pair stands alone, and its digits; None when the fault lies elsewhere."""
    import re

    # Pairs and escaped backslashes are consumed first, so that what the last branch finds is a half alone.
    pattern = r"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|\\[^u]|\\u([dD][89a-fA-F][0-9a-fA-F]{2})"
    for match in re.finditer(pattern, text):
        if match.group(1) is not None:
            return match.start(), match.group(1)
    return None


def _names_nan(body: bytes, reason: str) -> bool:
    _, found, digits = reason.partition("(byte ")
    if not found:
        return False
    at = int(digits.rstrip(")"))
    return body[at : at + 3] in (b"NaN", b"Inf", b"-In")
