"""Values that satisfy a JSON schema, built from the schema: structured outputs and tool arguments of the simulator."""

import math
import re
from typing import Any, TypeAlias

Schema: TypeAlias = dict[str, Any]

_FULL_DEPTH = 4
_MAX_DEPTH = 48
_WORDS = ("amber", "birch", "cedar", "delta", "ember", "fjord", "grove", "heron")
_FORMATS = {
    "date-time": "2026-01-02T03:04:05Z",
    "date": "2026-01-02",
    "time": "03:04:05Z",
    "duration": "PT5M",
    "email": "ada@example.com",
    "hostname": "example.com",
    "ipv4": "192.0.2.1",
    "ipv6": "2001:db8::1",
    "uuid": "01890a5d-ac96-774b-bcce-b302099a8057",
    "uri": "https://example.com/a",
    "regex": "^a+$",
}
# A pattern is met by search, not by solving it: these cover identifiers, codes, dates, phones and the like.
_SAMPLES = (
    *_WORDS, *_FORMATS.values(), "a", "A", "1", "42", "1234", "12345", "123456", "AB", "ABC", "ABC-123", "ABC123",
    "abc123", "a-b", "a_b", "snake_case", "camelCase", "A1", "AB12", "AB-1234", "USD", "EN", "en", "en-US", "1.0",
    "1.2.3", "v1.2.3", "3.14", "+15550100", "+15550100100", "555-0100", "555-010-0100", "12:34", "12:34:56",
    "#a1b2c3", "a1b2c3d4", "deadbeef", "@ada", "user_1", "Ada", "Ada Lovelace", "12345-6789", "$12.34", "100%",
    "/a/b", "",
)  # fmt: skip
_MAX_SIZE = 10_000
_UNSUPPORTED = ("not", "if", "dependentRequired", "dependentSchemas", "contains", "$dynamicRef")


class UnsupportedSchema(ValueError):
    """The schema is malformed or uses something that the simulator cannot satisfy; the message names it."""


def build_value(schema: Any, seed: bytes) -> Any:
    """A value valid for `schema`, the same for the same `seed`. Raises UnsupportedSchema."""
    try:
        return _Builder(schema, seed).build(schema, 0)
    except (TypeError, AttributeError, ArithmeticError) as error:
        # A keyword whose value has the wrong type; checking each one first would say no more than this.
        raise UnsupportedSchema(f"malformed schema: {error}") from None


class _Builder:
    def __init__(self, root: Any, seed: bytes) -> None:
        self._root = root
        self._seed = seed
        self._position = 0

    def build(self, schema: Any, depth: int) -> Any:
        if depth > _MAX_DEPTH:
            raise UnsupportedSchema("the schema's recursion has no end")
        if schema is True or schema == {}:
            return self._word()
        if not isinstance(schema, dict):
            raise UnsupportedSchema(f"expected an object as schema, got {schema!r}")
        schema = self._flatten(schema, depth)
        for keyword in _UNSUPPORTED:
            if keyword in schema:
                raise UnsupportedSchema(f"the simulator does not support {keyword!r} in schemas")
        if "const" in schema:
            return schema["const"]
        if "enum" in schema:
            options = schema["enum"]
            if not isinstance(options, list) or not options:
                raise UnsupportedSchema("enum must be a list with at least one value")
            return options[self._pick(len(options))]
        kind = _kind(schema)
        if kind == "object":
            return self._object(schema, depth)
        if kind == "array":
            return self._array(schema, depth)
        if kind == "string":
            return self._string(schema)
        if kind in ("integer", "number"):
            return self._number(schema, whole=kind == "integer")
        if kind == "boolean":
            return self._pick(2) == 1
        if kind == "null":
            return None
        raise UnsupportedSchema(f"unknown type {kind!r}")

    def _flatten(self, schema: Schema, depth: int) -> Schema:
        """Resolve references, merge `allOf`, choose one of `anyOf` / `oneOf`."""
        for _ in range(_MAX_DEPTH):
            if "$ref" in schema:
                target = self._resolve(schema["$ref"])
                schema = _merge(target, {name: value for name, value in schema.items() if name != "$ref"})
            elif "allOf" in schema:
                merged = {name: value for name, value in schema.items() if name != "allOf"}
                for part in schema["allOf"]:
                    merged = _merge(merged, self._flatten(part, depth))
                schema = merged
            elif "anyOf" in schema or "oneOf" in schema:
                name = "anyOf" if "anyOf" in schema else "oneOf"
                rest = {key: value for key, value in schema.items() if key != name}
                schema = _merge(rest, self._choose(schema[name], depth))
            else:
                return schema
        raise UnsupportedSchema("the schema's references have no end")

    def _choose(self, options: Any, depth: int) -> Schema:
        if not isinstance(options, list) or not options or not all(isinstance(option, dict) for option in options):
            raise UnsupportedSchema("anyOf and oneOf must be lists of schemas")
        if depth < _FULL_DEPTH:
            telling = [option for option in options if option.get("type") != "null"] or options
            chosen: Schema = telling[self._pick(len(telling))]
            return chosen
        # Deep inside, the option that ends soonest: recursive types must not recurse for ever.
        return min(options, key=_weight)

    def _resolve(self, reference: Any) -> Schema:
        if not isinstance(reference, str) or not reference.startswith("#"):
            raise UnsupportedSchema(f"only references inside the schema are supported, not {reference!r}")
        found = self._root
        for step in reference[1:].split("/")[1:]:
            step = step.replace("~1", "/").replace("~0", "~")
            if not isinstance(found, dict) or step not in found:
                raise UnsupportedSchema(f"reference {reference!r} leads nowhere")
            found = found[step]
        if not isinstance(found, dict):
            raise UnsupportedSchema(f"reference {reference!r} leads to no schema")
        return found

    def _object(self, schema: Schema, depth: int) -> dict[str, Any]:
        properties = schema.get("properties", {})
        required = schema.get("required", [])
        if not isinstance(properties, dict) or not isinstance(required, list):
            raise UnsupportedSchema("properties must be an object and required a list")
        names = list(properties) if depth < _FULL_DEPTH else [name for name in properties if name in required]
        value = {name: self.build(properties[name], depth + 1) for name in names}
        extra = schema.get("additionalProperties", True)
        for name in required:
            if name not in value:
                value[name] = self.build(extra, depth + 1)
        fewest = _bounded_size(schema.get("minProperties", 0))
        while len(value) < fewest:
            value[f"{self._word()}{len(value)}"] = self.build(extra, depth + 1)
        return value

    def _array(self, schema: Schema, depth: int) -> list[Any]:
        shortest = _bounded_size(schema.get("minItems", 0))
        longest = schema.get("maxItems", max(shortest, 2))
        value = [self.build(item, depth + 1) for item in schema.get("prefixItems", ())]
        items = schema.get("items", True)
        wanted = shortest if depth >= _FULL_DEPTH else min(max(shortest, 1 + self._pick(2)), longest)
        tries = 0
        while items is not False and len(value) < wanted:
            item = self.build(items, depth + 1)
            tries += 1
            if not schema.get("uniqueItems") or item not in value:
                value.append(item)
            elif tries > 16 * wanted:
                break
        if len(value) < shortest:
            raise UnsupportedSchema(f"cannot find {shortest} different items")
        return value

    def _string(self, schema: Schema) -> str:
        pattern = schema.get("pattern")
        shortest, longest = _bounded_size(schema.get("minLength", 0)), schema.get("maxLength", math.inf)
        if pattern is not None:
            try:
                matches = re.compile(pattern).search
            except (re.error, TypeError) as error:
                raise UnsupportedSchema(f"pattern {pattern!r}: {error}") from None
            for sample in _SAMPLES:
                if shortest <= len(sample) <= longest and matches(sample):
                    return sample
            raise UnsupportedSchema(f"the simulator has no text for pattern {pattern!r}")
        text = _FORMATS.get(schema.get("format", "")) or self._word()
        if len(text) < shortest:
            text += "x" * (shortest - len(text))
        return text if len(text) <= longest else text[: int(longest)]

    def _number(self, schema: Schema, *, whole: bool) -> int | float:
        low, high = schema.get("minimum", -math.inf), schema.get("maximum", math.inf)
        step = schema.get("multipleOf", 1 if whole else 0.5)
        # Draft 4 wrote exclusive bounds as a boolean beside the bound.
        above, below = schema.get("exclusiveMinimum", -math.inf), schema.get("exclusiveMaximum", math.inf)
        above = low if above is True else -math.inf if above is False else above
        below = high if below is True else math.inf if below is False else below
        floor = max(low, above)
        start = 0 if floor == -math.inf and min(high, below) >= 0 else floor if floor > -math.inf else min(high, below)
        first = math.ceil(start / step) if floor > -math.inf else math.floor(start / step)
        offsets = (*range(1 + self._pick(8), -1, -1), *range(-1, -9, -1))
        for offset in offsets:
            value = (first + offset) * step
            if low <= value <= high and above < value < below:
                return int(value) if whole else value
        middle: float = (max(low, above) + min(high, below)) / 2
        if not whole and "multipleOf" not in schema and math.isfinite(middle):
            return middle
        raise UnsupportedSchema("no number lies within the bounds")

    def _pick(self, count: int) -> int:
        self._position += 1
        return (self._seed[self._position % len(self._seed)] + self._position // len(self._seed)) % count

    def _word(self) -> str:
        return f"{_WORDS[self._pick(len(_WORDS))]} {self._position}"


def _kind(schema: Schema) -> Any:
    kind = schema.get("type")
    if isinstance(kind, list):
        return next((one for one in kind if one != "null"), "null")
    if kind is not None:
        return kind
    if "properties" in schema or "required" in schema:
        return "object"
    if "items" in schema or "prefixItems" in schema:
        return "array"
    return "number" if "minimum" in schema or "maximum" in schema or "multipleOf" in schema else "string"


def _merge(base: Schema, other: Schema) -> Schema:
    merged = {**base, **other}
    if "properties" in base and "properties" in other:
        merged["properties"] = {**base["properties"], **other["properties"]}
    if "required" in base and "required" in other:
        merged["required"] = [*base["required"], *(name for name in other["required"] if name not in base["required"])]
    return merged


def _bounded_size(size: int) -> int:
    if size > _MAX_SIZE:
        raise UnsupportedSchema(f"the simulator builds nothing with more than {_MAX_SIZE} items or characters")
    return size


def _weight(schema: Schema) -> int:
    kind = schema.get("type")
    if kind == "null" or "const" in schema or "enum" in schema:
        return 0
    if kind in ("string", "integer", "number", "boolean"):
        return 1
    return 2 if kind == "array" else 3
