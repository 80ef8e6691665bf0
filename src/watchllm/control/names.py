"""Names that people give to things: they need not be unique, ids are."""

from watchllm.control.errors import Invalid

LONGEST = 200


def checked(name: str, whose: str, *, may_be_empty: bool = False) -> str:
    """The name without spaces around it. Raises Invalid, for `whose` name it is (`a key`)."""
    name = name.strip()
    if len(name) <= LONGEST and (name.isprintable() if name else may_be_empty):
        return name
    least = "at most" if may_be_empty else "1 to"
    raise Invalid(f"{whose}'s name has {least} {LONGEST} printable characters")
