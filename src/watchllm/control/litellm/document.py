"""Reads a YAML file that may hold anything: plain data only, bounded in size, depth and what its aliases stand for."""

from typing import Any

import yaml

from watchllm.control.errors import Invalid

MAX_BYTES = 256 * 1024
MAX_DEPTH = 32
# Counted each time that an alias stands for it: nine lines of nine aliases each would be a billion.
MAX_VALUES = 20_000

_TAG = "tag:yaml.org,2002:"
_MERGE = _TAG + "merge"
_construct = yaml.constructor.SafeConstructor()


def parse(text: str) -> dict[str, Any]:
    """The mapping that is the document. Raises Invalid, which names the line, for anything else, and for tags other
    than those of plain data."""
    if len(text.encode("utf-8", "surrogatepass")) > MAX_BYTES:
        raise Invalid(f"longer than {MAX_BYTES} bytes")
    try:
        # The nodes only: aliases share theirs, so that nothing grows here.
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        raise Invalid(f"not YAML: {_in_a_line(error)}") from None
    except RecursionError:
        raise Invalid(f"nested deeper than {MAX_DEPTH} levels") from None
    document = _Values().of(root, 0) if root is not None else None
    if not isinstance(document, dict):
        raise Invalid("the file holds no settings: a LiteLLM configuration begins with `model_list:`")
    return document


class _Values:
    """Turns nodes into values, counting them."""

    def __init__(self) -> None:
        self._left = MAX_VALUES

    def of(self, node: Any, depth: int) -> Any:
        self._left -= 1
        if self._left < 0:
            raise Invalid(f"more than {MAX_VALUES} values, those that aliases stand for counted each time")
        if depth > MAX_DEPTH:
            raise Invalid(f"line {_line(node)}: nested deeper than {MAX_DEPTH} levels")
        # By the tag and the kind of node: a text may be tagged as a mapping.
        if isinstance(node, yaml.MappingNode) and node.tag == _TAG + "map":
            return self._mapping(node, depth)
        if isinstance(node, yaml.SequenceNode) and node.tag == _TAG + "seq":
            return [self.of(item, depth + 1) for item in node.value]
        return _scalar(node)

    def _mapping(self, node: Any, depth: int) -> dict[str, Any]:
        own: dict[str, Any] = {}
        merged: dict[str, Any] = {}
        for key, value in node.value:
            if key.tag == _MERGE:
                for source in self._merged(value, depth):
                    # Of several, the first that has a name wins.
                    merged = source | merged
                continue
            name = self.of(key, depth + 1)
            if not isinstance(name, str):
                raise Invalid(f"line {_line(key)}: a name is a text")
            if name in own:
                raise Invalid(f"line {_line(key)}: {name!r} is there twice")
            own[name] = self.of(value, depth + 1)
        return merged | own

    def _merged(self, node: Any, depth: int) -> list[dict[str, Any]]:
        value = self.of(node, depth + 1)
        sources = value if isinstance(value, list) else [value]
        if not all(isinstance(source, dict) for source in sources):
            raise Invalid(f"line {_line(node)}: `<<` takes in mappings only")
        return sources


def _scalar(node: Any) -> Any:
    kind = node.tag.removeprefix(_TAG) if isinstance(node, yaml.ScalarNode) else ""
    try:
        if kind in ("str", "timestamp"):
            return str(node.value)
        if kind == "null":
            return None
        if kind == "bool":
            return _construct.construct_yaml_bool(node)
        if kind == "int":
            return _construct.construct_yaml_int(node)
        if kind == "float":
            return _construct.construct_yaml_float(node)
    except (ValueError, KeyError, OverflowError):
        raise Invalid(f"line {_line(node)}: {node.value[:40]!r} is no {kind}") from None
    raise Invalid(f"line {_line(node)}: the tag {node.tag[:80]!r} is for more than plain data")


def _line(node: Any) -> int:
    return int(node.start_mark.line) + 1


def _in_a_line(error: yaml.YAMLError) -> str:
    # A problem's own text comes with an excerpt of the file, which may hold a secret.
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or "it cannot be read"
    return f"line {mark.line + 1}: {problem}" if mark is not None else problem
