"""Sessions in files, whole and damaged."""

from __future__ import annotations

from pathlib import Path

import pytest
from steps import CACHES, Tiny, assert_same_bits, decode, open_session, random_tokens, step

from edge_conflayers.engine.session.saved import load_session, save_session
from edge_conflayers.errors import BadInput, EdgeConflayersError


@pytest.mark.parametrize(("arch", "length"), [("llama", 60), ("llama", 300), ("gemma3", 60)])
@pytest.mark.parametrize("kind", ["flash", "no-flash", "q8_0"])
def test_save_and_load(tiny: Tiny, tmp_path: Path, arch: str, length: int, kind: str) -> None:
    model = tiny(arch, n_embd=128)
    tokens = random_tokens(model, length + 20)
    settings = {"n_ctx": 512, **CACHES[kind]}
    with open_session(model, **settings) as session:
        session.read(tokens[:length])
        save_session(session, tmp_path / "s.bin")
        expected = decode(session, tokens[length:], [1, 4])
    with open_session(model, **settings) as session:
        session.read(tokens[5:50])  # something else before
        load_session(session, tmp_path / "s.bin")
        assert session.tokens == tokens[:length]
        assert_same_bits(decode(session, tokens[length:], [1, 4]), expected)


def test_a_damaged_save_leaves_an_empty_session(tiny: Tiny, tmp_path: Path) -> None:
    model = tiny("llama")
    tokens = random_tokens(model, 60)
    with open_session(model, n_ctx=256) as session:
        expected = step(session, tokens[:40])
        save_session(session, tmp_path / "good")
        good = (tmp_path / "good").read_bytes()
        for name, data in {
            "cut": good[: len(good) // 2],
            "short": good[:10],
            "empty": b"",
            "other": b"not a session" * 100,
        }.items():
            path = tmp_path / name
            path.write_bytes(data)
            with pytest.raises(BadInput, match="not a saved session"):
                load_session(session, path)
            assert session.tokens == []
            assert_same_bits(step(session, tokens[:40]), expected)
        with pytest.raises(BadInput, match="not a saved session"):
            load_session(session, tmp_path / "missing")
        with pytest.raises(EdgeConflayersError, match="cannot be written"):
            save_session(session, tmp_path / "no" / "folder")
    assert not list(tmp_path.glob("*.part"))


def test_a_save_of_another_model(tiny: Tiny, tmp_path: Path) -> None:
    with open_session(tiny("llama"), n_ctx=128) as session:
        session.read(random_tokens(session.model, 20))
        save_session(session, tmp_path / "s")
    with (
        open_session(tiny("llama", n_layer=6), n_ctx=128) as session,
        pytest.raises(BadInput, match="not a saved session"),
    ):
        load_session(session, tmp_path / "s")
