"""The picture of the layers in `docs/internals/architecture.md`, drawn from the list that `test_structure` holds.

`python -m tests.docs.layers` draws it anew. Every text stands in a box of its own colour, so that the picture can be
read on a light page and on a dark one.
"""

from __future__ import annotations

from pathlib import Path

from tests.test_structure import FLOOR, LAYERS, PACKAGE

PICTURE = Path(__file__).resolve().parent.parent.parent / "docs" / "images" / "layers.svg"

# What is in each room, in a few words.
WORDS = {
    "durations": "“1h30m”, timedeltas",
    "signals": "what receivers hear",
    "errors": "what users can meet",
    "conf": "the DJANGO_STEPS setting",
    "core": "names, ids, retry policies, clock",
    "values": "Python values ⇄ JSON",
    "failures": "exceptions ⇄ records",
    "ledger": "all SQL: claims, records, transitions",
    "models": "tables, controls, querysets",
    "definitions": "@workflow, start(), step",
    "engine": "one pass of one run",
    "presentation": "what people see of a run",
    "replaying": "runs in flight over new code",
    "worker": "loop, heartbeat, executors",
    "testing": "the testing kit",
    "forms": "forms made from types",
    "admin": "the pages",
    "callbacks": "answers from outside",
    "management": "the commands",
    "contrib": "other frameworks",
    "monitoring": "health, metrics",
    "checks": "system checks",
    "pytest_plugin": "the pytest fixture",
    "templatetags": "for the pages",
    "urls": "what projects include",
}
WIDTH, MARGIN, HEIGHT, GAP, FLOOR_GAP = 920, 8, 50, 10, 26
BOX, TEXT, QUIET, LINE = "#24557f", "#ffffff", "#cfe3f5", "#7d8b99"


def draw() -> str:
    """The picture, as SVG."""
    floors = [rooms for rooms in reversed([sorted(filter(exists, rooms)) for rooms in LAYERS]) if rooms]
    height = 2 * MARGIN + len(floors) * HEIGHT + (len(floors) - 1) * FLOOR_GAP
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" aria-label="'
        f"The layers from top to bottom: {'; '.join(', '.join(rooms) for rooms in floors)}."
        '" font-family="system-ui, sans-serif" text-anchor="middle">'
    ]
    for number, rooms in enumerate(floors):
        top = MARGIN + number * (HEIGHT + FLOOR_GAP)
        width = (WIDTH - 2 * MARGIN - (len(rooms) - 1) * GAP) / len(rooms)
        for place, room in enumerate(rooms):
            parts += _box(room, MARGIN + place * (width + GAP), top, width)
        if number < len(floors) - 1:
            parts.append(_arrow(top + HEIGHT))
    return "\n".join([*parts, "</svg>"]) + "\n"


def exists(room: str) -> bool:
    """Whether a room of the list is built already."""
    return (PACKAGE / room).is_dir() or (PACKAGE / f"{room}.py").is_file()


def _box(room: str, left: float, top: int, width: float) -> list[str]:
    middle = left + width / 2
    return [
        f'<rect x="{left:.1f}" y="{top}" width="{width:.1f}" height="{HEIGHT}" rx="5" fill="{BOX}"/>',
        f'<text x="{middle:.1f}" y="{top + 21}" fill="{TEXT}" font-size="15" font-weight="600">{room}</text>',
        f'<text x="{middle:.1f}" y="{top + 39}" fill="{QUIET}" font-size="12">{WORDS[room]}</text>',
    ]


def _arrow(top: int) -> str:
    """From one floor down to the next: the way of an import."""
    middle, end = WIDTH / 2, top + FLOOR_GAP - 4
    return f'<path d="M{middle} {top + 4}V{end}m-6 -7l6 7l6 -7" fill="none" stroke="{LINE}" stroke-width="2"/>'


if __name__ == "__main__":
    assert FLOOR.keys() <= WORDS.keys(), FLOOR.keys() - WORDS.keys()
    PICTURE.write_text(draw())
