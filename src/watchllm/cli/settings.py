"""`KEY=VALUE` arguments, as everything that has settings takes them."""

from collections.abc import Callable, Mapping
from typing import Any

import typer

from watchllm.domain.setting_values import InvalidSetting

SETTINGS = typer.Argument(metavar="KEY=VALUE…", help="An empty value means: back to the default.")
LIMITS_AT_FIRST = typer.Argument(
    None, metavar="[KEY=VALUE…]", help="Limits that are in force with it, as `set` takes them."
)


def changes_of(settings: list[str], parse: Callable[[Mapping[str, str]], dict[str, Any]]) -> dict[str, Any]:
    """The typed changes that `parse` makes of them; a usage error for what is not understood."""
    pairs = {}
    for text in settings:
        name, equals, value = text.partition("=")
        if not equals:
            raise typer.BadParameter(f"{text!r}: expected KEY=VALUE", param_hint="KEY=VALUE")
        if name in pairs:
            raise typer.BadParameter(f"{name} is given twice", param_hint="KEY=VALUE")
        pairs[name] = value
    try:
        return parse(pairs)
    except InvalidSetting as error:
        raise typer.BadParameter(str(error), param_hint="KEY=VALUE") from None
