"""As much of Helm's template language as the chart in deploy/helm uses, so that its manifests can be judged where no
Helm is installed. What it does not know is an error, never left out."""

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

_TAG = re.compile(r"\{\{(-?)(.*?)(-?)\}\}", re.DOTALL)
_WORD = re.compile(r'"[^"]*"|\S+')


class Unknown(Exception):
    """A template uses what is not known here."""


@dataclass
class Node:
    """Text (`tag` is empty), a value to print (`value`), or a block with its two branches."""

    tag: str
    text: str
    body: list["Node"] = field(default_factory=list)
    otherwise: list["Node"] = field(default_factory=list)


class Chart:
    """A chart's folder. `render` gives every manifest with values merged over its defaults."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.values: dict[str, Any] = yaml.safe_load((folder / "values.yaml").read_text())
        self.about: dict[str, Any] = yaml.safe_load((folder / "Chart.yaml").read_text())
        self._defined: dict[str, list[Node]] = {}
        self._files = {path.name: _parsed(path.read_text()) for path in sorted((folder / "templates").iterdir())}
        for nodes in self._files.values():
            self._defined |= {_unquoted(node.text): node.body for node in nodes if node.tag == "define"}

    def render(self, values: dict[str, Any] | None = None) -> list[dict[str, Any]]:
        found = []
        for name in self._files:
            if name.endswith(".yaml"):
                found += [document for document in yaml.safe_load_all(self.text(name, values)) if document]
        return found

    def text(self, name: str, values: dict[str, Any] | None = None) -> str:
        """What one template becomes."""
        root = {
            "Values": _merged(self.values, values or {}),
            "Chart": {"Name": self.about["name"], "Version": self.about["version"]}
            | {"AppVersion": self.about["appVersion"]},
            "Release": {"Name": "test", "Namespace": "here", "Service": "Helm"},
        }
        return self._write(self._files[name], root, {"$": root})

    def _write(self, nodes: list[Node], dot: Any, names: dict[str, Any]) -> str:
        return "".join(self._pieces(nodes, dot, names))

    def _pieces(self, nodes: list[Node], dot: Any, names: dict[str, Any]) -> Iterator[str]:
        for node in nodes:
            if node.tag == "":
                yield node.text
            elif node.tag == "value":
                yield _printed(self._value(node.text, dot, names))
            elif node.tag in ("if", "with"):
                value = self._value(node.text, dot, names)
                inner = value if value and node.tag == "with" else dot
                yield self._write(node.body if value else node.otherwise, inner, names)
            elif node.tag == "range":
                variables, _, source = node.text.partition(":=")
                key, value_name = (name.strip() for name in variables.split(","))
                for name, value in sorted(self._value(source, dot, names).items()):
                    yield self._write(node.body, value, names | {key: name, value_name: value})

    def _value(self, text: str, dot: Any, names: dict[str, Any]) -> Any:
        value: Any = None
        for number, call in enumerate(text.split("|")):
            words = _WORD.findall(call)
            piped = [value] if number else []
            value = self._call(words, piped, dot, names)
        return value

    def _call(self, words: list[str], piped: list[Any], dot: Any, names: dict[str, Any]) -> Any:
        if len(words) == 1 and not piped:
            return _operand(words[0], dot, names)
        name, arguments = words[0], [_operand(word, dot, names) for word in words[1:]] + piped
        if name == "include":
            return self._write(self._defined[arguments[0]], arguments[1], names)
        if name == "nindent":
            margin = " " * arguments[0]
            return "\n" + "\n".join(margin + line if line else line for line in arguments[1].split("\n"))
        if name == "toYaml":
            return yaml.safe_dump(arguments[0], default_flow_style=False, sort_keys=True).rstrip("\n")
        if name == "quote":
            return json.dumps(str(arguments[0]), ensure_ascii=False)
        if name == "toJson":
            return json.dumps(arguments[0], sort_keys=True, separators=(",", ":"))
        if name == "sha256sum":
            return hashlib.sha256(arguments[0].encode()).hexdigest()
        if name == "default":
            return arguments[1] or arguments[0]
        if name == "add":
            return sum(int(number) for number in arguments)
        raise Unknown(f"function {name}")


def _operand(word: str, dot: Any, names: dict[str, Any]) -> Any:
    if word.startswith('"'):
        return _unquoted(word)
    if word.isdigit():
        return int(word)
    if not word.startswith((".", "$")):
        raise Unknown(word)
    first, *path = word.split(".")
    value = dot if first == "" else names[first]
    for part in path:
        if part:
            # Helm prints nothing for what is missing; here it is a mistake.
            value = value[part]
    return value


def _parsed(source: str) -> list[Node]:
    root = Node("root", "")
    open_blocks: list[tuple[Node, list[Node]]] = [(root, root.body)]
    position = 0
    trim = False
    for found in _TAG.finditer(source):
        text = source[position : found.start()]
        text = text.lstrip() if trim else text
        text = text.rstrip() if found[1] else text
        trim = bool(found[3])
        position = found.end()
        block, into = open_blocks[-1]
        into.append(Node("", text))
        word, _, rest = found[2].strip().partition(" ")
        if word == "end":
            open_blocks.pop()
        elif word == "else":
            open_blocks[-1] = (block, block.otherwise)
        elif word in ("if", "with", "range", "define"):
            node = Node(word, rest.strip())
            into.append(node)
            open_blocks.append((node, node.body))
        elif not word.startswith("/*"):
            into.append(Node("value", found[2].strip()))
    root.body.append(Node("", source[position:].lstrip() if trim else source[position:]))
    if len(open_blocks) != 1:
        raise Unknown("a block without its end")
    return root.body


def _unquoted(word: str) -> str:
    return word.strip().strip('"')


def _printed(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _merged(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for name, value in above.items():
        nested = isinstance(value, dict) and isinstance(below.get(name), dict)
        merged[name] = _merged(below[name], value) if nested else value
    return merged
