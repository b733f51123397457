"""The arrows of the house: a package imports only what stands below it."""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).parent.parent / "src" / "clearstory"

# From the ground up; packages on one line do not see each other.
LAYERS = [
    ["errors"],
    ["durable"],
    ["text", "metrics"],
    ["models"],
    ["training", "generation", "lens", "formats"],
    ["tasks"],
    ["recipes"],
    ["server", "studio"],
    ["cli"],
]
LEVEL = {room: level for level, rooms in enumerate(LAYERS) for room in rooms}


def imports(file: Path) -> list[tuple[int, str]]:
    """(line, room) of every import of our own packages in a file, lazy ones included."""
    found = []
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}:{node.lineno}: imports are written in full, so that arrows can be seen"
            names = [node.module or ""]
            if node.module == "clearstory":
                names = [f"clearstory.{alias.name}" for alias in node.names]
        found += [(node.lineno, name.split(".")[1]) for name in names if name.startswith("clearstory.")]
    return found


def test_every_arrow_points_down() -> None:
    wrong = []
    for file in sorted(ROOT.rglob("*.py")):
        room = file.relative_to(ROOT).parts[0].removesuffix(".py")
        if room in ("__init__", "__main__"):
            continue  # the public names come from every layer
        for line, other in imports(file):
            if other in LEVEL and other != room and LEVEL[other] >= LEVEL[room]:
                wrong.append(f"{file.relative_to(ROOT)}:{line}: {room} (layer {LEVEL[room]}) imports {other}")
    picture = "\n".join(f"  {level}  {'  '.join(rooms)}" for level, rooms in reversed(list(enumerate(LAYERS))))
    assert not wrong, "arrows that point up:\n" + "\n".join(wrong) + f"\nthe house:\n{picture}"


def test_every_room_has_its_place() -> None:
    rooms = {path.stem for path in ROOT.iterdir() if path.name != "__pycache__" and not path.name.startswith("__")}
    rooms -= {"py"}  # py.typed
    assert rooms <= set(LEVEL), f"rooms without a layer: {sorted(rooms - set(LEVEL))}"
