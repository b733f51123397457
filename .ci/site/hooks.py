"""Pages of the site that are made from the code: the command reference, and links that lead out of the docs."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[2]
OUTSIDE = re.compile(r"\[([^\]]+)\]\((?:\.\./)+(?:CONTRIBUTING|CHANGELOG|changelog\.d|benchmarks|README)[^)]*\)")
NOT_RUN = re.compile(r"^(```\w+) not run:.*$", re.MULTILINE)
LOADED = re.compile(r'<(?:script|img|iframe)[^>]+src="https?://[^"]+"|<link[^>]+stylesheet[^>]+href="https?://[^"]+"')
PACKAGES = ("text", "models", "evaluation", "training", "generation", "lens", "formats", "recipes")


def on_files(files: Files, config: Any) -> Files:
    """Add the reference: the help page of every command, the public names, and every package."""
    from clearstory.cli.help import command_help
    from clearstory.cli.main import COMMANDS, load_command, overview

    parts = ["# Command line\n\nEvery page below is what `clearstory COMMAND --help` prints.\n"]
    parts.append(f"```text\n{overview()}\n```\n")
    for name, line in COMMANDS.items():
        page = command_help(name, line, load_command(name))
        parts.append(f"## {name}\n\n```text\n{page}\n```\n")
    files.append(File.generated(config, "reference/commands.md", content="\n".join(parts)))
    files.append(File.generated(config, "reference/python.md", content=public_interface()))
    for package in PACKAGES:
        files.append(File.generated(config, f"reference/{package}.md", content=package_reference(package)))
    return files


def public_interface() -> str:
    """The page of the public names, each documented where it is defined."""
    import clearstory

    parts = ["# Python\n\nThe public interface: the names of `clearstory.__all__`.\n"]
    places = {**clearstory.FUNCTIONS, **{name: f"{module}:{name}" for name, module in clearstory.TYPES.items()}}
    for name, place in places.items():
        parts.append(
            f"## clearstory.{name}\n\n::: {place.replace(':', '.')}\n    options:\n      show_root_heading: false\n"
        )
    return "\n".join(parts)


def package_reference(package: str) -> str:
    """The page of a package: its modules in alphabetical order, with their public functions and classes."""
    folder = ROOT / "src" / "clearstory" / package
    subject = ast.get_docstring(ast.parse((folder / "__init__.py").read_text(encoding="utf-8")))
    parts = [f"# clearstory.{package}\n\n{subject}\n"]
    for file in sorted(folder.rglob("*.py")):
        if file.name != "__init__.py":
            module = ".".join(file.relative_to(ROOT / "src").with_suffix("").parts)
            parts.append(f"::: {module}\n")
    return "\n".join(parts)


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Links to files outside docs/ become plain text: the site has no such pages. Fences keep their language only."""
    return OUTSIDE.sub(r"\1", NOT_RUN.sub(r"\1", markdown))


def on_post_page(output: str, page: Any, config: Any) -> str:
    """No page loads anything from another machine; a link is only followed by the reader."""
    loaded = LOADED.search(output)
    if loaded:
        raise SystemExit(f"{page.file.src_path} loads {loaded[0]} from another machine; keep it in docs/")
    return output
