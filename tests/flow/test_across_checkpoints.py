"""Over training: any view at every checkpoint of a run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from clearstory.cli.main import main
from clearstory.errors import BadInput, BadSetting
from clearstory.formats.folders import open_model
from clearstory.recipes.inference.inspect import MAX_CHECKPOINTS, inspect
from clearstory.training.weight_checkpoints import list_saved_models
from trained import all_events, recipe, text_file


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("across")
    all_events(recipe(text_file(folder), folder / "run", steps=20, training={"save_steps": 2, "keep_checkpoints": 99}))
    return folder / "run"


def test_a_view_is_shown_at_twelve_checkpoints(run: Path) -> None:
    every = list(list_saved_models(run).values())
    assert len(every) > MAX_CHECKPOINTS
    report = inspect(run, "the cat", "next-token", across_checkpoints=True, top=30)
    curve, *views = report.panels
    assert len(views) == MAX_CHECKPOINTS
    assert report.caption is not None
    assert report.caption.startswith(f"{MAX_CHECKPOINTS} of {len(every)} checkpoints, steps 0 to 20")
    assert views[0].title.startswith("Step 0: ")
    last = inspect(every[-1], "the cat", "next-token", top=30)
    assert views[-1].rows == last.rows
    few = inspect(run, "the cat", "next-token", across_checkpoints=True, top=2)
    assert few.panels[0] == curve  # whose points do not depend on the rows that are shown
    assert all(len(panel.rows) == 2 for panel in few.panels[1:])
    assert all(len(line.x) == MAX_CHECKPOINTS for line in curve.lines)
    first = inspect(every[0], "the cat", "next-token", top=30)
    for line in curve.lines:
        own = {row[0]: row[-1] for row in first.rows}
        assert line.x[-1] == 20
        assert line.y[-1] == {row[0]: row[-1] for row in last.rows}[line.name]
        assert line.name not in own or line.y[0] == own[line.name]


def test_texts_reports_and_grids_across_checkpoints(run: Path) -> None:
    bits = inspect(run, "the cat sat", "surprisal", across_checkpoints=True)
    assert bits.panels[0].title == "bits per byte over training"
    assert bits.panels[0].lines[0].y[-1] < bits.panels[0].lines[0].y[0]  # the loss has decreased
    assert len(inspect(run, "the cat", "residual-norms", across_checkpoints=True).panels) == 2 * MAX_CHECKPOINTS
    assert len(inspect(run, "the cat", "logit-lens", across_checkpoints=True).panels) == MAX_CHECKPOINTS


def test_the_command_has_the_flag(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(run), "the cat", "--across-checkpoints", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["kind"] == "report"
    assert result["panels"][0]["kind"] == "curve"


def test_what_has_no_checkpoints_is_refused(run: Path) -> None:
    with pytest.raises(BadInput, match="has no checkpoints"):
        inspect(run / "model", "the cat", across_checkpoints=True)
    with pytest.raises(BadSetting, match="a loaded model has no checkpoints"):
        inspect(open_model(run / "model"), "the cat", across_checkpoints=True)
