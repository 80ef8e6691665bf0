"""Deterministic text: what the simulated model says, and how it is cut into tokens."""

import re
from hashlib import blake2b

_TOKEN = re.compile(r"\s*\S{1,8}|\s+")
_CHARACTERS_PER_TOKEN = 4
_SENTENCES = (
    "The short answer depends on how the question is framed.",
    "A good first step is to write down what is already known.",
    "Most teams begin with the simplest thing that could work.",
    "In practice the difference shows up only under load.",
    "Measure before and after, and keep the numbers together.",
    "The default settings are a reasonable place to start.",
    "It helps to separate what changes often from what does not.",
    "Two cases deserve attention: the empty one and the very large one.",
    "An example makes the idea clearer than a definition.",
    "The same reasoning applies when the order is reversed.",
    "Costs fall quickly once repeated work is avoided.",
    "There is a trade-off between freshness and speed.",
    "A smaller model is often enough for this kind of task.",
    "Check the units first, because that is where most errors hide.",
    "The result stays the same for the same input.",
    "If the source is unclear, ask for it rather than guess.",
    "Each part can be tested on its own and then together.",
    "Keep the interface narrow and the names plain.",
    "The second attempt is usually shorter than the first.",
    "Nothing here needs a network connection.",
    "Readers remember the structure longer than the details.",
    "A table would show the comparison at a glance.",
    "This holds for all values inside the stated range.",
    "The exception is worth a sentence of its own.",
    "Backups matter only if they have been restored once.",
    "Time zones deserve explicit treatment everywhere.",
    "The queue absorbs short bursts and reports long ones.",
    "Rounding happens once, at the very end.",
    "When in doubt, prefer the option that is easier to undo.",
    "The remaining work is mostly careful checking.",
    "Every limit should have a name and a reason.",
    "That is the whole of it, apart from local conventions.",
)


def tokenize(text: str) -> list[str]:
    """Cut `text` into tokens that join to exactly `text`."""
    return _TOKEN.findall(text)


def count_tokens(text: str) -> int:
    """How many tokens a prompt of `text` is billed as: one for four characters, as is usual for English."""
    return (len(text) + _CHARACTERS_PER_TOKEN - 1) // _CHARACTERS_PER_TOKEN


def digest(*parts: bytes) -> bytes:
    """32 bytes that depend on every part and on where one ends and the next begins."""
    state = blake2b(digest_size=32)
    for part in parts:
        state.update(len(part).to_bytes(8, "big"))
        state.update(part)
    return state.digest()


def pseudo_tokens(seed: bytes, count: int = 0) -> list[str]:
    """The tokens of a readable answer that depends only on `seed` (at least 16 bytes) and names it, so that two answers
    are never equal by chance. `count` fixes the number of tokens; 0 leaves it to the seed (about 20 to 60)."""
    tokens = ["Answer", " " + seed[:6].hex(), "."]
    if not count:
        for byte in seed[6 : 8 + seed[6] % 4]:
            tokens += _TOKENIZED[byte % len(_TOKENIZED)]
        return tokens
    position = 0
    while len(tokens) < count:
        # The index moves on by more than the seed's period, so long answers don't repeat after 32 sentences.
        tokens += _TOKENIZED[(seed[position % len(seed)] + position // len(seed)) % len(_TOKENIZED)]
        position += 1
    return tokens[:count]


_TOKENIZED = tuple(tokenize(" " + sentence) for sentence in _SENTENCES)
