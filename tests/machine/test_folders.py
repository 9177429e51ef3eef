"""The user's folders, also of users who have none."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import platformdirs
import pytest
from click.testing import CliRunner
from gguf_models import write_tiny_model

from edge_conflayers.cli import main
from edge_conflayers.errors import BadInput
from edge_conflayers.machine import folders


def unknown(*_: object) -> str:
    raise RuntimeError("could not determine the home directory")


def unexpanded(*_: object) -> str:
    return "~/.cache/edge-conflayers"


@pytest.fixture(params=[unknown, unexpanded])
def homeless(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """As platformdirs' versions do for a user without HOME who is not in the user database."""
    answer: Callable[..., str] = request.param
    for name in ("user_cache_dir", "user_data_dir"):
        monkeypatch.setattr(platformdirs, name, answer)
    for variable in (folders.CACHE_VARIABLE, folders.DATA_VARIABLE):
        monkeypatch.delenv(variable, raising=False)


def test_the_variables_win(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable, folder in (
        (folders.CACHE_VARIABLE, folders.cache_folder),
        (folders.DATA_VARIABLE, folders.data_folder),
    ):
        monkeypatch.delenv(variable, raising=False)
        assert folder().is_absolute() and "edge-conflayers" in folder().parts
        monkeypatch.setenv(variable, str(tmp_path))
        assert folder() == tmp_path


@pytest.mark.usefixtures("homeless")
def test_without_a_home_models_of_ones_own_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BadInput, match="set EDGE_CONFLAYERS_DATA"):
        folders.data_folder()
    path = write_tiny_model(tmp_path / "tiny.gguf", "llama", n_layer=2)
    given = ("run", path, "-p", "a", "-n", 4, "-t", 1)
    done = CliRunner().invoke(main, [str(each) for each in given])
    assert done.exit_code == 0, done.output
    assert [each.name for each in tmp_path.iterdir()] == ["tiny.gguf"]
    listed = CliRunner().invoke(main, ["models", "list"])
    assert listed.exit_code == 2
    assert "there is no home folder; set EDGE_CONFLAYERS_CACHE" in listed.stderr
