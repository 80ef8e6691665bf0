"""Documents in which something, anywhere, was replaced by any other JSON: what hostile clients and providers send."""

import copy
from collections.abc import Iterator
from typing import Any

from hypothesis import strategies as st

words = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
any_json = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False) | words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=6,
)


def places(document: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of every value in `document`, the whole included."""
    yield at
    items = document.items() if type(document) is dict else enumerate(document) if type(document) is list else ()
    for key, value in items:
        yield from places(value, (*at, key))


@st.composite
def replaced(draw: st.DrawFn, document: Any) -> Any:
    """`document` with up to three values replaced, left out, or given a member that nobody knows."""
    result = copy.deepcopy(document)
    for _ in range(draw(st.integers(1, 3))):
        path = draw(st.sampled_from(list(places(result))))
        if not path:
            if draw(st.booleans()):
                return draw(any_json)
            continue
        holder = result
        for key in path[:-1]:
            holder = holder[key]
        change = draw(st.sampled_from(["replace", "leave out", "add"]))
        if change == "leave out":
            del holder[path[-1]]
        elif change == "add" and type(holder) is dict:
            holder[draw(words)] = draw(any_json)
        else:
            holder[path[-1]] = draw(any_json)
    return result
