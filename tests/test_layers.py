"""Packages import only from lower layers, and no module imports itself through others."""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).parent.parent / "src" / "clearstory"

# From the bottom up; packages on one line do not import each other.
LAYERS = [
    ["errors"],
    ["durable"],
    ["text", "metrics", "http"],
    ["models"],
    ["evaluation"],
    ["training", "generation", "lens", "formats"],
    ["tasks"],
    ["recipes"],
    ["serving"],
    ["server", "studio"],
    ["cli"],
]
LEVEL = {package: level for level, packages in enumerate(LAYERS) for package in packages}


def imports(file: Path) -> list[tuple[int, str]]:
    """(line, package) of every import of our own packages in a file, lazy ones included."""
    found = []
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}:{node.lineno}: imports are absolute, so that layers can be checked"
            names = [node.module or ""]
            if node.module == "clearstory":
                names = [f"clearstory.{alias.name}" for alias in node.names]
        found += [(node.lineno, name.split(".")[1]) for name in names if name.startswith("clearstory.")]
    return found


def module_name(file: Path) -> str:
    """The dotted name of a module's file; of a package for its __init__."""
    return ".".join(file.relative_to(ROOT.parent).with_suffix("").parts).removesuffix(".__init__")


def imports_at_load(file: Path, modules: set[str]) -> set[str]:
    """Our own modules that a module imports when it is loaded: neither in functions nor for type checkers only."""
    found: set[str] = set()

    def visit(node: ast.AST) -> None:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            return
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            return
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            submodules = {f"{node.module}.{alias.name}" for alias in node.names} & modules
            found.update(submodules)
            if len(submodules) < len(node.names):
                found.add(node.module)
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(ast.parse(file.read_text(encoding="utf-8")))
    return found & modules


def test_every_import_points_to_a_lower_layer() -> None:
    wrong = []
    for file in sorted(ROOT.rglob("*.py")):
        package = file.relative_to(ROOT).parts[0].removesuffix(".py")
        if package in ("__init__", "__main__"):
            continue  # the public names come from every layer
        for line, other in imports(file):
            if other in LEVEL and other != package and LEVEL[other] >= LEVEL[package]:
                wrong.append(f"{file.relative_to(ROOT)}:{line}: {package} (layer {LEVEL[package]}) imports {other}")
    layers = "\n".join(f"  {level}  {'  '.join(names)}" for level, names in reversed(list(enumerate(LAYERS))))
    assert not wrong, "imports of the same or a higher layer:\n" + "\n".join(wrong) + f"\nlayers:\n{layers}"


def test_every_package_has_a_layer() -> None:
    packages = {path.stem for path in ROOT.iterdir() if path.name != "__pycache__" and not path.name.startswith("__")}
    packages -= {"py"}  # py.typed
    assert packages <= set(LEVEL), f"packages without a layer: {sorted(packages - set(LEVEL))}"


def test_no_module_imports_itself_through_others() -> None:
    files = {module_name(file): file for file in sorted(ROOT.rglob("*.py"))}
    edges = {name: imports_at_load(file, set(files)) - {name} for name, file in files.items()}
    finished: set[str] = set()

    def circle_from(name: str, path: list[str]) -> list[str] | None:
        if name in path:
            return [*path[path.index(name) :], name]
        if name in finished:
            return None
        for other in sorted(edges[name]):
            if found := circle_from(other, [*path, name]):
                return found
        finished.add(name)
        return None

    circles = [circle for name in sorted(edges) if (circle := circle_from(name, []))]
    assert not circles, "import circles:\n" + "\n".join(" -> ".join(circle) for circle in circles)
