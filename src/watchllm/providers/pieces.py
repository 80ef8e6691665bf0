"""Cuts a stored text into the few pieces in which it is told again as a stream."""

from typing import Any

_PIECES = 5
_MIN_PIECE = 64


def pieces(text: str) -> list[str]:
    """A text in a few pieces, cut behind spaces where there are any and never inside a character."""
    size = max(_MIN_PIECE, -(-len(text) // _PIECES))
    cut = []
    start = 0
    while start < len(text):
        end = start + size
        if end < len(text):
            space = text.rfind(" ", start + size // 2, end)
            end = space + 1 if space >= 0 else end
        cut.append(text[start:end])
        start = end
    return cut


def pieces_with_tokens(text: str, tokens: list[Any] | None) -> list[tuple[str, list[Any] | None]]:
    """The pieces of a text, each with the log probabilities of its tokens (`[{"token", "logprob", …}]`)."""
    if tokens is None:
        return [(piece, None) for piece in pieces(text)]
    words = [token.get("token") if type(token) is dict else None for token in tokens]
    # Where tokens are not the text (bytes of a character, special tokens), all go with the text in one piece.
    if not tokens or any(type(word) is not str for word in words) or "".join(map(str, words)) != text:
        return [(text, tokens)]
    size = -(-len(tokens) // _PIECES)
    starts = range(0, len(tokens), size)
    return [("".join(map(str, words[at : at + size])), tokens[at : at + size]) for at in starts]
