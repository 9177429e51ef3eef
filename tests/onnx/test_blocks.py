"""Each GGUF type decodes to the bits that the ``gguf`` package gives, by itself and in a graph."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy as np
import numpy.typing as npt
import onnxruntime
import pytest
from gguf import GGMLQuantizationType
from gguf_models import random_blocks
from onnx import TensorProto, helper
from onnx_runner import set_level

from edge_conflayers.errors import BadInput
from edge_conflayers.onnx.blocks import FORMATS
from edge_conflayers.onnx.export import TARGETS, Target
from edge_conflayers.onnx.external_data import DataFile
from edge_conflayers.onnx.gguf_file import read_gguf
from edge_conflayers.onnx.graph.builder import CONTRIB, Graph
from edge_conflayers.onnx.weights import Precision, Rows, check_type, choose_form, plan

TYPES = (
    *FORMATS,
    GGMLQuantizationType.F32,
    GGMLQuantizationType.F16,
    GGMLQuantizationType.BF16,
)
TWO_TERMS = {kind for kind, form in FORMATS.items() if form.offset}
ROUNDING = 2.0**-22
"""Relative to a block's largest terms: each is rounded to half a unit in the last place."""
ROWS, COLUMNS = 37, 512

Floats = npt.NDArray[np.float32]


def one_tensor(path: Path, kind: GGMLQuantizationType) -> Floats:
    """Writes a file with a random tensor "w", and gives what the gguf package reads from it."""
    stored = random_blocks(kind, ROWS, COLUMNS, seed=int(kind))
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_tensor("w", stored, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    (tensor,) = gguf.GGUFReader(path).tensors
    values: Floats = gguf.quants.dequantize(tensor.data, kind).astype(np.float32)
    return values


def in_graph(
    path: Path, target: Target, precision: Precision, *, turned: bool, product: bool
) -> Floats:
    """A tensor's rows as a graph gives them: as embeddings, or as products with unit vectors."""
    tensor = read_gguf(path).tensors["w"]
    dtype = TensorProto.FLOAT16 if precision == "fp16" else TensorProto.FLOAT
    operators = TARGETS[target](dtype)
    data = DataFile("w.data")
    matrix = plan(data, "w", Rows((tensor,), (None,)), choose_form(tensor.type, precision, turned))
    graph = Graph(data)
    shape = (1, "n", COLUMNS) if product else (1, "n")
    x = graph.input("x", dtype if product else TensorProto.INT64, shape)
    y = (operators.product if product else operators.embedding)(graph, x, matrix)
    graph.output(y, dtype)
    domains = [helper.make_opsetid("", 24), helper.make_opsetid(CONTRIB, 1)]
    model = helper.make_model(graph.proto("g"), opset_imports=domains, ir_version=11)
    set_level(model.graph, 0)
    data.write(path.parent, lambda _: None)
    (path.parent / "w.onnx").write_bytes(model.SerializeToString())
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", "0")
    session = onnxruntime.InferenceSession(
        str(path.parent / "w.onnx"), options, providers=["CPUExecutionProvider"]
    )
    number = helper.tensor_dtype_to_np_dtype(dtype)
    given: Any = np.eye(COLUMNS, dtype=number) if product else np.arange(ROWS, dtype=np.int64)
    (found,) = session.run(None, {"x": given[None]})
    rows: Floats = found[0].astype(np.float32)
    return rows.T if product else rows


def assert_decoded(found: Floats, wanted: Floats, kind: GGMLQuantizationType) -> None:
    if kind in TWO_TERMS:
        blocks = np.abs(wanted).reshape(ROWS, -1, 32)
        allowed = np.repeat(blocks.max(axis=-1), 32, axis=1) * 4 * ROUNDING
        assert (np.abs(found - wanted) <= allowed).all()
    else:
        np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("kind", FORMATS, ids=lambda kind: kind.name)
def test_blocks_are_what_gguf_reads(kind: GGMLQuantizationType) -> None:
    stored = random_blocks(kind, ROWS, COLUMNS, seed=1)
    wanted = gguf.quants.dequantize(stored, kind)
    form = FORMATS[kind]
    blocks = form.unpack(stored)
    assert blocks.quants.max() < 1 << form.bits
    assert (blocks.offsets is not None) == form.offset
    assert_decoded(form.values(blocks), wanted, kind)


@pytest.mark.parametrize("product", (False, True), ids=("embedding", "product"))
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("kind", TYPES, ids=lambda kind: kind.name)
def test_graphs_decode_them(
    tmp_path: Path, kind: GGMLQuantizationType, target: Target, product: bool
) -> None:
    wanted = one_tensor(tmp_path / "w.gguf", kind)
    turned = product and target == "standard"
    found = in_graph(tmp_path / "w.gguf", target, "keep", turned=turned, product=product)
    assert_decoded(found, wanted, kind)


@pytest.mark.parametrize(
    "kind",
    [kind for kind in TYPES if FORMATS.get(kind) is None or FORMATS[kind].bits == 8],
    ids=lambda kind: kind.name,
)
def test_embeddings_shared_with_a_head_kept_by_columns(
    tmp_path: Path, kind: GGMLQuantizationType
) -> None:
    wanted = one_tensor(tmp_path / "w.gguf", kind)
    found = in_graph(tmp_path / "w.gguf", "standard", "keep", turned=True, product=False)
    assert_decoded(found, wanted, kind)


@pytest.mark.parametrize("precision", ("fp32", "fp16"))
@pytest.mark.parametrize(
    "kind", (GGMLQuantizationType.Q2_K, GGMLQuantizationType.IQ4_XS, GGMLQuantizationType.Q4_K)
)
@pytest.mark.parametrize("target", TARGETS)
def test_other_precisions(
    tmp_path: Path, kind: GGMLQuantizationType, target: Target, precision: Precision
) -> None:
    wanted = one_tensor(tmp_path / "w.gguf", kind)
    if precision == "fp16":
        wanted = wanted.astype(np.float16).astype(np.float32)
    turned = target == "standard"
    found = in_graph(tmp_path / "w.gguf", target, precision, turned=turned, product=True)
    np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("kind", (GGMLQuantizationType.Q2_K, GGMLQuantizationType.IQ4_XS))
def test_types_that_onnx_has_not_are_refused(tmp_path: Path, kind: GGMLQuantizationType) -> None:
    one_tensor(tmp_path / "w.gguf", kind)
    tensor = read_gguf(tmp_path / "w.gguf").tensors["w"]
    with pytest.raises(BadInput, match=f"w is {kind.name}, .*--precision fp32"):
        check_type(tensor, "keep")
    check_type(tensor, "fp16")


def test_rows_are_read_in_pieces(tmp_path: Path) -> None:
    kind = GGMLQuantizationType.Q4_K
    one_tensor(tmp_path / "w.gguf", kind)
    tensor = read_gguf(tmp_path / "w.gguf").tensors["w"]
    order = np.random.default_rng(0).permutation(ROWS)
    rows = Rows((tensor, tensor), (None, order))
    everything = np.concatenate([tensor.read(), tensor.read()[order]])
    pieces = [*rows.chunks(elements=5 * COLUMNS)]
    assert len(pieces) == 9
    np.testing.assert_array_equal(np.concatenate(pieces), everything)
    np.testing.assert_array_equal(np.concatenate([*rows.turned()], axis=1), everything)
