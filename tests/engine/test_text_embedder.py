"""Embeddings by a model that is loaded, beside llama-cpp-python's own class."""

from __future__ import annotations

import numpy as np
import pytest
from steps import RealModel, TinyPath

from edge_conflayers import Llama
from edge_conflayers.engine.model import Model
from edge_conflayers.engine.text_embedder import TextEmbedder

MEAN = 1  # LLAMA_POOLING_TYPE_MEAN
TEXTS = ["hello there", "a", "one two three four " * 20, "hello there"]


@pytest.mark.parametrize("arch", ["llama", "gemma3", "qwen2"])
def test_they_are_llama_cpp_pythons(tiny_path: TinyPath, arch: str) -> None:
    path = tiny_path(arch, n_layer=2)
    with Llama(
        path, embedding=True, n_ctx=512, n_threads=1, pooling_type=MEAN, verbose=False, fresh=True
    ) as llm:
        expected = np.array(llm.embed(TEXTS, normalize=True))
    with Model(path) as model, TextEmbedder(model, threads=1) as embedder:
        found = embedder.embed([model.tokenize(each) for each in TEXTS])
        assert found.shape == expected.shape and found.dtype == np.float32
        assert np.allclose(found, expected, atol=1e-4)
        assert not np.allclose(found[0], found[1], atol=1e-3)


def test_the_context_grows_with_the_texts(tiny_path: TinyPath) -> None:
    path = tiny_path("llama", n_layer=2)
    with Model(path) as model, TextEmbedder(model, threads=1) as embedder:
        short = model.tokenize("hello")
        first = embedder.embed([short])
        long = model.repeated("one two three ", 1500)
        both = embedder.embed([short, long])
        assert np.allclose(both[0], first[0], atol=1e-5)
        assert np.allclose(embedder.embed([long])[0], both[1], atol=1e-5)
        embedder.close()
        assert np.allclose(embedder.embed([short]), first, atol=1e-6)


@pytest.mark.model
def test_texts_that_mean_the_same_are_close(real_model: RealModel) -> None:
    model = real_model("smollm2-135m")
    texts = ["The cat sleeps on the sofa.", "A cat is sleeping on the couch.", "def main(): pass"]
    with TextEmbedder(model, threads=2) as embedder:
        one, same, other = embedder.embed([model.tokenize(each) for each in texts])
    assert one @ same > one @ other
