"""The table of providers in the guide is that of `vendors.toml`."""

from pathlib import Path

from watchllm.control.vendors import price_books, vendors
from watchllm.domain.snapshot import Vendor

GUIDE = Path(__file__).parents[3] / "docs" / "guides" / "providers.md"
BEGIN, END = "<!-- providers: begin -->\n", "<!-- providers: end -->\n"


def table() -> str:
    lines = [
        "| name | base URL | speaks | the key goes as | names without `provider/` | notes |",
        "|---|---|---|---|---|---|",
    ]
    return "\n".join([*lines, *map(row, vendors())]) + "\n"


def row(vendor: Vendor) -> str:
    base = f"`{vendor.base_url}`" if vendor.base_url else "`--base-url`"
    header = f"`{vendor.auth_header}: {(vendor.auth_scheme + ' KEY').strip()}`"
    families = ", ".join(f"`{family}…`" for family in vendor.families)
    if vendor.name == "sim":
        header = "no key"
    cells = (f"`{vendor.name}`", base, ", ".join(vendor.dialects), header, families or "–", notes(vendor) or "–")
    return f"| {' | '.join(cells)} |"


def notes(vendor: Vendor) -> str:
    found = {
        f"`{vendor.env_prefix}_API_KEY` sets it for the whole instance": bool(vendor.env_prefix),
        "a key is optional": vendor.key_optional,
        "images by URL are fetched for it": vendor.fetch_images,
        "`stream_options` is not sent": not vendor.stream_usage,
        "prices only of your own": vendor.name not in price_books() and vendor.name != "sim",
        "built in, costs nothing": vendor.name == "sim",
    }
    return "; ".join(note for note, holds in found.items() if holds)


def test_the_guide_has_the_table_of_the_data() -> None:
    found = GUIDE.read_text(encoding="utf-8").partition(BEGIN)[2].partition(END)[0]
    assert found == table(), f"put this between the marks in {GUIDE}:\n{table()}"
