"""Answers in the OpenAI dialect, as hypothesis strategies: whatever a vendor could send with status 200."""

from typing import Any

from hypothesis import strategies as st

# JSON has no half surrogates.
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=400)
said = texts.filter(lambda text: text.strip() != "")
words = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)
scalars = st.none() | st.booleans() | st.integers(-(2**60), 2**60) | words
usages = st.fixed_dictionaries(
    {"prompt_tokens": st.integers(0, 9999), "completion_tokens": st.integers(0, 9999)},
    optional={"prompt_tokens_details": st.fixed_dictionaries({"cached_tokens": st.integers(0, 9999)})},
)


def _token(word: str) -> dict[str, Any]:
    return {"token": word, "logprob": -0.5, "bytes": list(word.encode()), "top_logprobs": [{"token": "x"}]}


functions = st.fixed_dictionaries({"name": words, "arguments": texts})
calls = st.builds(
    lambda number, kind: {"id": f"call_{number}", **kind},
    st.integers(0, 10**9),
    st.one_of(
        st.builds(lambda function: {"type": "function", "function": function}, functions),
        st.builds(lambda name, text: {"type": "custom", "custom": {"name": name, "input": text}}, words, texts),
    ),
)
token_lists = st.lists(words.map(_token), min_size=1, max_size=20)


@st.composite
def chat_choices(draw: st.DrawFn, index: int) -> dict[str, Any]:
    tokens = draw(st.none() | token_lists)
    aligned = tokens is not None and draw(st.booleans())
    content = "".join(token["token"] for token in tokens or []) if aligned else draw(st.none() | texts)
    message: dict[str, Any] = {"role": "assistant", "content": content}
    optional = {
        "refusal": st.none() | said,
        "annotations": st.lists(st.fixed_dictionaries({"type": words, "url": words}), max_size=2),
        "reasoning_content": st.none() | texts.filter(bool),
        "reasoning": texts.filter(bool),
        "reasoning_details": st.just([{"type": "reasoning.text", "text": "t", "index": 0}, {"index": 1, "text": "u"}]),
        "tool_calls": st.none() | st.just([]) | st.lists(calls, min_size=1, max_size=3),
        "function_call": st.none() | functions,
        "vendor_field": scalars,
    }
    message |= draw(st.fixed_dictionaries({}, optional=optional))
    choice: dict[str, Any] = {"index": index, "message": message}
    if tokens is not None:
        choice["logprobs"] = draw(
            st.sampled_from(
                [{"content": tokens}, {"content": tokens, "refusal": None}, {"content": [], "refusal": tokens}]
            )
        )
    elif draw(st.booleans()):
        choice["logprobs"] = None
    choice["finish_reason"] = draw(st.sampled_from(["stop", "length", "tool_calls", "function_call"]))
    return choice | draw(st.fixed_dictionaries({}, optional={"native_finish_reason": words, "matched_stop": scalars}))


@st.composite
def chat_answers(draw: st.DrawFn) -> dict[str, Any]:
    count = draw(st.integers(1, 3))
    answer: dict[str, Any] = {"id": draw(words), "object": "chat.completion", "created": 1, "model": draw(words)}
    answer["choices"] = [draw(chat_choices(index)) for index in range(count)]
    return answer | draw(_extras)


_extras = st.fixed_dictionaries(
    {},
    optional={
        "usage": usages,
        "system_fingerprint": st.none() | words,
        "service_tier": st.none() | words,
        "provider": words,
        "citations": st.lists(words, max_size=2),
    },
)


@st.composite
def text_answers(draw: st.DrawFn) -> dict[str, Any]:
    choices: list[dict[str, Any]] = []
    for index in range(draw(st.integers(1, 3))):
        choice: dict[str, Any] = {"text": draw(texts), "index": index}
        logprobs = st.none() | st.just({"tokens": ["a", "b"], "token_logprobs": [None, -1], "text_offset": [0, 1]})
        choice |= draw(st.fixed_dictionaries({}, optional={"logprobs": logprobs}))
        choices.append(choice | {"finish_reason": draw(st.sampled_from(["stop", "length"]))})
    answer = {"id": draw(words), "object": "text_completion", "created": 1, "model": draw(words), "choices": choices}
    return answer | draw(_extras)


def json_values(max_leaves: int = 20) -> st.SearchStrategy[Any]:
    """Any JSON value, made of the names that the dialect uses more often than of others."""
    names = st.sampled_from(
        [
            *("choices", "usage", "delta", "message", "content", "index", "finish_reason", "text", "tool_calls", "id"),
            *("function", "arguments", "name", "logprobs", "error", "role", "refusal", "x_groq", "audio", "type"),
        ]
    )
    leaves = scalars | st.floats(allow_nan=False, allow_infinity=False) | st.sampled_from(["stop", "", "length"])
    return st.recursive(
        leaves,
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(names | words, inner, max_size=5),
        max_leaves=max_leaves,
    )
