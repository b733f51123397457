"""Completion: candidates for the next word of a command line, and the completion scripts of shells.

Each script calls `clearstory __complete SHELL WORD...`, where the last word is the one at the cursor, possibly empty.
It prints one candidate per line, with its help after a tab, and FILES if file names are candidates as well.
Flags, choices and presets come from the settings of the commands, as in their help. No torch is imported.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clearstory.cli.arguments import COMMON_FLAGS, flag_kind, flag_name
from clearstory.cli.main import COMMANDS, HELP_FLAGS, load_command
from clearstory.recipes.settings.schema import Setting, setting_table, strip_optional

FILES = ":files"
"""The line that asks the shell for names of files."""


@dataclass(frozen=True)
class CompletionWord:
    """A candidate for the word at the cursor, and its description in one line."""

    word: str
    help: str = ""


def complete(shell: str, words: Sequence[str]) -> list[str]:
    """The lines for a shell: candidates that begin as the last of the words does, and FILES.

    >>> complete("fish", ["fill"])
    ['fill-mask\\tpredict the token at each [MASK] of a text']
    >>> complete("bash", ["train", "--training.optimizer=a"])
    ['adamw']
    """
    words = join_broken_words(words) if shell == "bash" else list(words)
    *before, current = words or [""]
    flag, equals, value = current.partition("=")
    if equals and current.startswith("--"):
        before, current = [*before, flag], value
    found, lines = list(candidates(before, current)), []
    for each in found:
        if isinstance(each, CompletionWord) and each.word.startswith(current):
            word = f"{flag}={each.word}" if equals and shell == "fish" else each.word
            # readline replaces what follows the last colon or equals sign.
            word = word[current.rfind(":") + 1 :] if shell == "bash" else word
            lines.append(f"{word}\t{each.help}" if each.help else word)
    return [*lines, *([FILES] if FILES in found else [])]


def join_broken_words(words: Sequence[str]) -> list[str]:
    """The words of a bash command line, joined where readline splits at = and :.

    >>> join_broken_words(["train", "corpus", ":", "kj"]), join_broken_words(["--model", "=", "clear"])
    (['train', 'corpus:kj'], ['--model=clear'])
    """
    joined: list[str] = []
    glue = False
    for word in words:
        is_break = word in ("=", ":", "::")
        if joined and (is_break or glue):
            joined[-1] += word
        else:
            joined.append(word)
        glue = is_break
    return joined


def candidates(before: Sequence[str], current: str) -> Iterator[CompletionWord | str]:
    """Candidates after the words `before`, of which those that start with `current` are used, and FILES."""
    if not before:
        yield from (CompletionWord(name, line) for name, line in COMMANDS.items())
        yield from (
            CompletionWord("help", "show the help of a command"),
            CompletionWord("--help"),
            CompletionWord("--version"),
        )
        return
    name, *rest = before
    if name in ("help", *HELP_FLAGS):
        yield from help_candidates(rest)
        return
    if name not in COMMANDS:
        return
    settings = setting_table(load_command(name).recipe)
    if rest and rest[-1] in HELP_FLAGS:
        yield from help_candidates([name])
        return
    previous = rest[-1] if rest else ""
    key = previous[2:].replace("-", "_") if previous.startswith("--") and "--" not in rest else ""
    if key and flag_kind(key, settings) not in (None, bool):
        yield from value_candidates(settings[key], current) if key in settings else [FILES]
    elif current.startswith("-") and "--" not in rest:
        yield from flag_candidates(settings)
    else:
        positional = next_positional(rest, settings)
        if positional is not None:
            yield from value_candidates(positional, current)


def help_candidates(words: Sequence[str]) -> Iterator[CompletionWord]:
    """Commands after `help`, and after a command the sections of its help."""
    from clearstory.cli.help import ALL, help_sections

    if not words:
        yield from (CompletionWord(name, line) for name, line in COMMANDS.items())
    elif words[0] in COMMANDS and len(words) == 1:
        sections = help_sections(setting_table(load_command(words[0]).recipe))
        yield from (CompletionWord(section) for section in (*sections, ALL) if section)


def flag_candidates(settings: Mapping[str, Setting]) -> Iterator[CompletionWord]:
    """Every flag of a command; a switch that is on has a flag that turns it off."""
    for key, setting in settings.items():
        if setting.positional and "." not in key:
            continue
        is_on = setting.default is True
        yield CompletionWord(f"--no-{key}" if is_on else flag_name(key), setting.help)
    yield from (CompletionWord(flag_name(key), text) for key, text in COMMON_FLAGS.items())
    yield CompletionWord("--help", "show the help page and exit.")


def next_positional(words: Sequence[str], settings: Mapping[str, Setting]) -> Setting | None:
    """The setting that the next positional argument is for."""
    count, is_value = 0, False
    for word in words:
        if is_value:
            is_value = False
        elif word.startswith("--"):
            kind = flag_kind(word[2:].replace("-", "_"), settings)
            is_value = "=" not in word and kind not in (None, bool)
        else:
            count += 1
    for setting in (each for each in settings.values() if each.positional):
        if count == 0 or flag_kind(setting.key, settings) is tuple:
            return setting
        count -= 1
    return None


def value_candidates(setting: Setting, current: str) -> Iterator[CompletionWord | str]:
    """The values of a setting: its choices, the names it knows, or files."""
    key = setting.key.rpartition(".")[2]
    if setting.choices:
        yield from map(CompletionWord, setting.choices)
    elif setting.path[-1] == "name" and key == "model":  # a ModelChoice
        yield from preset_candidates()
    elif key in NAMED_VALUES:
        yield from NAMED_VALUES[key](current)
    elif strip_optional(setting.hint) in (str, Path, tuple[str, ...]):
        yield FILES


def preset_candidates() -> Iterator[CompletionWord]:
    """Names of presets."""
    from clearstory.recipes.presets import list_presets

    yield from (CompletionWord(each.name, each.use) for each in list_presets())


def preset_list_candidates(current: str) -> Iterator[CompletionWord]:
    """Presets after the last comma of a list."""
    listed = current[: current.rfind(",") + 1]
    yield from (CompletionWord(listed + each.word, each.help) for each in preset_candidates())


def view_candidates(current: str) -> Iterator[CompletionWord]:
    """Names of views."""
    from clearstory.lens.registry import VIEWS

    yield from (CompletionWord(name, f"needs {spec.needs}") for name, spec in VIEWS.items())


def tokenizer_candidates(current: str) -> Iterator[CompletionWord | str]:
    """Kinds of tokenizers, and folders."""
    from clearstory.text.train_tokenizer import KINDS

    yield from map(CompletionWord, KINDS)
    yield FILES


def text_candidates(current: str) -> Iterator[CompletionWord | str]:
    """Files, and after `corpus:` the built-in corpora."""
    if "corpus:".startswith(current[:7]) and current:
        from clearstory.text.builtin_corpora import CORPORA

        yield from (CompletionWord(f"corpus:{name}") for name in CORPORA)
    yield FILES


def device_candidates(current: str) -> Iterator[CompletionWord]:
    """Devices."""
    yield from map(CompletionWord, ("cpu", "cuda", "mps", "auto"))


NAMED_VALUES: dict[str, Callable[[str], Iterator[Any]]] = {
    "models": preset_list_candidates,
    "view": view_candidates,
    "tokenizer": tokenizer_candidates,
    "compare_tokenizer": tokenizer_candidates,
    "text": text_candidates,
    "device": device_candidates,
}
"""What completes the values of a setting that has names, by the last part of its key."""

BASH = """\
# Completion of clearstory for bash.
_clearstory() {
    local current="${COMP_WORDS[COMP_CWORD]}" line
    if [[ $current == [=:] ]]; then current=""; fi
    COMPREPLY=()
    while IFS= read -r line; do
        if [[ $line == :files ]]; then
            compopt -o filenames 2>/dev/null
            while IFS= read -r line; do COMPREPLY+=("$line"); done < <(compgen -f -- "$current")
        else
            COMPREPLY+=("${line%%$'\\t'*}")
        fi
    done < <("${COMP_WORDS[0]/#\\~/$HOME}" __complete bash "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null)
}
complete -F _clearstory clearstory
"""

ZSH = """\
#compdef clearstory
# Completion of clearstory for zsh.
_clearstory() {
    local -a described
    local line files=0
    for line in "${(@f)$("${words[1]/#\\~/$HOME}" __complete zsh "${(@)words[2,CURRENT]}" 2>/dev/null)}"; do
        if [[ $line == :files ]]; then
            files=1
        elif [[ -n $line ]]; then
            described+=("${${line%%$'\\t'*}//:/\\\\:}:${${line#*$'\\t'}//:/\\\\:}")
        fi
    done
    [[ ${words[CURRENT]} == --*=* ]] && compset -P '*='
    (( ${#described} )) && _describe clearstory described
    (( files )) && _files
}
if [[ $funcstack[1] == _clearstory ]]; then _clearstory "$@"; else compdef _clearstory clearstory; fi
"""

FISH = """\
# Completion of clearstory for fish.
function __clearstory_complete
    set -l words (commandline -opc) (commandline -ct)
    for line in ($words[1] __complete fish $words[2..-1] 2>/dev/null)
        if test "$line" = ":files"
            __fish_complete_path (commandline -ct)
        else
            echo $line
        end
    end
end
complete -c clearstory -f -a "(__clearstory_complete)"
"""

SCRIPTS = {"bash": BASH, "zsh": ZSH, "fish": FISH}
"""The completion script of each shell."""
