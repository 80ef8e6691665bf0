"""What the simulated model decides to say, before any dialect: text, tool calls, refusals, and why it stopped."""

from typing import Any

import msgspec

from watchllm.sim.knobs import Knobs
from watchllm.sim.schema import build_value
from watchllm.sim.text import count_tokens, digest, pseudo_tokens, tokenize

REFUSAL = "I'm sorry, but I can't help with that request."


class Tool(msgspec.Struct, frozen=True):
    """A tool on offer. `schema` describes its arguments; a `free` tool takes plain text instead."""

    name: str
    schema: Any = None
    free: bool = False
    description: str = ""


class Ask(msgspec.Struct, frozen=True):
    """One request as the model sees it. `seed` stands for everything that may change the words of the answer;
    `forced_tool` names the tool that must be called, "*" = any; `schema` is True for any JSON object."""

    seed: bytes
    text: str
    echo: bool = False
    tools: tuple[Tool, ...] = ()
    forced_tool: str = ""
    parallel: bool = True
    schema: Any = None
    choices: int = 1
    max_tokens: int | None = None
    stop: tuple[str, ...] = ()


class ToolCall(msgspec.Struct, frozen=True):
    """`arguments` is JSON, or plain text for a free tool."""

    name: str
    arguments: str
    free: bool = False


class Choice(msgspec.Struct, frozen=True):
    """One alternative. `finish` is stop, length, tool_calls or content_filter; `refused`: the tokens are a refusal;
    `stopped_by` is the stop sequence that ended it."""

    tokens: list[str]
    calls: list[ToolCall]
    finish: str
    refused: bool = False
    stopped_by: str = ""

    @property
    def text(self) -> str:
        return "".join(self.tokens)

    @property
    def billed_tokens(self) -> int:
        """How many tokens the alternative is billed as."""
        return len(self.tokens) + sum(count_tokens(call.name + call.arguments) for call in self.calls)


def decide(ask: Ask, knobs: Knobs) -> list[Choice]:
    """All alternatives, the same for the same `ask` and `knobs`. Raises UnsupportedSchema."""
    return [_decide_one(ask, knobs, index) for index in range(ask.choices)]


def think(ask: Ask, knobs: Knobs) -> list[str]:
    """The tokens of what the model thinks before it answers: as many as `knobs.reasoning` says, else some."""
    return pseudo_tokens(digest(ask.seed, b"thinking"), knobs.reasoning)


def _decide_one(ask: Ask, knobs: Knobs, index: int) -> Choice:
    seed = ask.seed if index == 0 else digest(ask.seed, index.to_bytes(2, "big"))
    if knobs.refusal:
        return Choice(tokenize(REFUSAL), [], "stop", refused=True)
    if knobs.blank:
        return Choice([], [], "stop")
    wanted = _called_tools(ask)
    if wanted:
        calls = [_call(tool, digest(seed, tool.name.encode())) for tool in wanted]
        return Choice([], calls, "stop" if ask.forced_tool not in ("", "*") else "tool_calls")
    tokens = _words(ask, knobs, seed)
    if knobs.content_filter:
        return Choice(tokens[: len(tokens) // 2], [], "content_filter")
    return _bounded(tokens, ask)


def _words(ask: Ask, knobs: Knobs, seed: bytes) -> list[str]:
    if ask.schema is not None:
        value = {"answer": "".join(pseudo_tokens(seed))} if ask.schema is True else build_value(ask.schema, seed)
        return tokenize(msgspec.json.encode(value).decode())
    if ask.echo or knobs.echo:
        return tokenize(ask.text)
    tokens = pseudo_tokens(seed, knobs.tokens)
    if knobs.big:
        # In the middle, so that good events come before it and after it.
        tokens.insert(len(tokens) // 2, "x" * knobs.big)
    return tokens


def _bounded(tokens: list[str], ask: Ask) -> Choice:
    stopped_by = ""
    if ask.stop:
        text = "".join(tokens)
        found = [(at, stop) for stop in ask.stop if (at := text.find(stop)) >= 0]
        if found:
            end, stopped_by = min(found)
            tokens = tokenize(text[:end])
    if ask.max_tokens is not None and len(tokens) > ask.max_tokens:
        return Choice(tokens[: ask.max_tokens], [], "length")
    return Choice(tokens, [], "stop", stopped_by=stopped_by)


def _called_tools(ask: Ask) -> list[Tool]:
    """The tools that must be called, or that the user's text names as `call NAME`."""
    if not ask.tools:
        return []
    if ask.forced_tool and ask.forced_tool != "*":
        return [tool for tool in ask.tools if tool.name == ask.forced_tool]
    named = [tool for tool in ask.tools if _names(ask.text, tool.name)]
    if not named and ask.forced_tool:
        named = [ask.tools[0]]
    return named if ask.parallel else named[:1]


def _names(text: str, tool: str) -> bool:
    phrase = f"call {tool}"
    at = text.find(phrase)
    while at >= 0:
        following = text[at + len(phrase) : at + len(phrase) + 1]
        if not (following.isalnum() or following in ("_", "-")) or not following:
            return True
        at = text.find(phrase, at + 1)
    return False


def _call(tool: Tool, seed: bytes) -> ToolCall:
    if tool.free:
        return ToolCall(tool.name, "".join(pseudo_tokens(seed)), free=True)
    value = build_value(tool.schema, seed) if tool.schema else {}
    return ToolCall(tool.name, msgspec.json.encode(value).decode())
