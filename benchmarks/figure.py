"""A measured figure, its yardstick and its target, and how they are shown."""

from dataclasses import dataclass
from typing import Any, Literal

from rich.console import Console
from rich.table import Table


@dataclass(frozen=True, slots=True)
class Target:
    """What was promised of a figure: of its measured value, or of its ratio to the yardstick."""

    bound: Literal["≥", "≤"]
    value: float
    of: Literal["measured", "ratio"] = "measured"


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table. `ratio` is measured / yardstick; `note` what a reader must know to compare."""

    figure: str
    measured: float
    unit: str
    yardstick: float | None = None
    yardstick_name: str = ""
    target: Target | None = None
    note: str = ""

    @property
    def ratio(self) -> float | None:
        return self.measured / self.yardstick if self.yardstick else None

    @property
    def met(self) -> bool | None:
        """Whether the target was met; None without one."""
        if self.target is None:
            return None
        value = self.ratio if self.target.of == "ratio" else self.measured
        if value is None:
            return False
        return value >= self.target.value if self.target.bound == "≥" else value <= self.target.value

    def as_json(self) -> dict[str, Any]:
        target = self.target
        return {
            "figure": self.figure,
            "measured": self.measured,
            "unit": self.unit,
            "yardstick": self.yardstick,
            "yardstick_name": self.yardstick_name,
            "ratio": self.ratio,
            "target": None if target is None else {"of": target.of, "bound": target.bound, "value": target.value},
            "met": self.met,
            "note": self.note,
        }


def show(title: str, rows: list[Row], console: Console) -> None:
    """Print the rows as a table."""
    table = Table(title=title, title_justify="left", title_style="bold", header_style="bold")
    table.add_column("figure", overflow="fold")
    for name in ("measured", "yardstick", "ratio", "target"):
        table.add_column(name, justify="right", overflow="fold")
    table.add_column("")
    for row in rows:
        yardstick = "" if row.yardstick is None else f"{_number(row.yardstick)} {row.yardstick_name}"
        target = "" if row.target is None else f"{'ratio ' if row.target.of == 'ratio' else ''}{_target(row.target)}"
        table.add_row(
            row.figure,
            f"{_number(row.measured)} {row.unit}",
            yardstick,
            "" if row.ratio is None else f"{row.ratio:.2f}",
            target,
            {None: "", True: "[green]met[/]", False: "[red]missed[/]"}[row.met],
        )
    console.print(table)
    for note in dict.fromkeys(row.note for row in rows if row.note):
        console.print(f"  {note}", style="dim", highlight=False)


def _target(target: Target) -> str:
    return f"{target.bound} {target.value:g}"


def _number(value: float) -> str:
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.3f}"
