"""The model: what it is, and what of it a step reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edge_conflayers.costs.bytes_read import bytes_read, is_read, used_experts
from edge_conflayers.doctor.section import Section, size
from edge_conflayers.engine.ggml import TensorType
from edge_conflayers.engine.gguf_tensors import Tensor, read_tensors
from edge_conflayers.engine.language_model import LanguageModel
from edge_conflayers.engine.model import Model

_K_BLOCK = 256  # weights of a K-quant's block
OURS, UPSTREAM, SMALL = "ours", "upstream's", "no products"


@dataclass(frozen=True)
class TypeUse:
    """What a model keeps in one type of tensors.

    Attributes:
        type: of the tensors.
        tensors, n_bytes: of this type in the file.
        bytes_read: of a step over one token.
        values_read: matrix elements that such a step multiplies by.
        kernel: what multiplies by them: ours, upstream's, or nothing, where they are vectors.
        k_rows: whether the rows of its matrices are as long as K-quants need, multiples of 256.
    """

    type: TensorType
    tensors: int
    n_bytes: int
    bytes_read: float
    values_read: float
    kernel: str
    k_rows: bool = True


def type_uses(
    tensors: Sequence[Tensor], formats: Mapping[str, str], n_layer: int, experts: float = 1.0
) -> list[TypeUse]:
    """The types of a model's tensors, those that a step reads most of first.

    Args:
        tensors: the model's.
        formats: what serves each format of matrices, as ``binding.kernels`` says.
        n_layer: layers that a step runs.
        experts: share of the experts that a token uses.
    """
    uses = []
    for tensor_type in dict.fromkeys(tensor.type for tensor in tensors):
        some = [tensor for tensor in tensors if tensor.type == tensor_type]
        read = [tensor for tensor in some if is_read(tensor, tensors)]
        products = [tensor for tensor in read if sum(n > 1 for n in tensor.shape) >= 2]
        ours = formats.get(tensor_type.name, "upstream") != "upstream"
        # Our kernels take matrices; those of experts lie in tensors of three dimensions.
        served = ours and all(tensor.is_matrix for tensor in products)
        kernel = (OURS if served else UPSTREAM) if products else SMALL
        values = sum(
            tensor.n_values * (experts if "_exps" in tensor.name else 1.0) for tensor in products
        )
        # Only what is_read says of all tensors decides whether the embeddings are the head, too.
        kept = [tensor for tensor in some if tensor in read]
        uses.append(
            TypeUse(
                tensor_type,
                len(some),
                sum(tensor.n_bytes for tensor in some),
                bytes_read(kept, n_layer, experts).under(),
                values,
                kernel,
                all(tensor.shape[0] % _K_BLOCK == 0 for tensor in products),
            )
        )
    return sorted(uses, key=lambda use: -use.bytes_read)


def examine_model(model: LanguageModel) -> tuple[Section, list[TypeUse]]:
    """What the model is; of an exported folder, the types of its tensors are not told.

    Raises:
        BadInput: the file is damaged.
    """
    section = Section("model")
    section.data = {
        "path": str(model.path),
        "architecture": model.architecture,
        "n_layer": model.n_layer,
        "n_embd": model.n_embd,
        "n_vocab": model.n_vocab,
        "n_ctx_train": model.n_ctx_train,
        "arithmetic": model.arithmetic,
    }
    section.tell("file", str(model.path))
    section.tell(
        "architecture",
        f"{model.architecture}, {model.n_layer} layers of width {model.n_embd},"
        f" {model.n_vocab} tokens, trained for {model.n_ctx_train}",
    )
    uses: list[TypeUse] = []
    if isinstance(model, Model):
        uses = _tell_types(section, model)
    else:
        section.tell("runs on", model.arithmetic)
    return section, uses


def _tell_types(section: Section, model: Model) -> list[TypeUse]:
    from edge_conflayers.engine import binding

    tensors = read_tensors(model.path)
    formats = {} if model.on_gpu else binding.kernels(model.kernels)["formats"]
    uses = type_uses(tensors, formats, model.n_layer, used_experts(model))
    weights = sum(tensor.n_values for tensor in tensors)
    section.data |= {
        "description": model.description,
        "weights": weights,
        "weight_bytes": sum(tensor.n_bytes for tensor in tensors),
        "types": [_to_json(use) for use in uses],
    }
    section.tell(
        "quantization",
        f"{model.description}: {weights / 1e6:.0f} million weights in"
        f" {size(section.data['weight_bytes'])}",
    )
    for use in uses:
        read = f"{size(use.bytes_read)} read a step" if use.bytes_read else "rows looked up"
        what = {OURS: "our kernel", UPSTREAM: "upstream's kernel", SMALL: "no matrices"}[use.kernel]
        section.tell(
            use.type.name,
            f"{use.tensors} tensor{'s' * (use.tensors > 1)}, {size(use.n_bytes)}, {read}: {what}",
        )
    return uses


def _to_json(use: TypeUse) -> dict[str, Any]:
    return {
        "type": use.type.name,
        "bits": use.type.bits,
        "tensors": use.tensors,
        "bytes": use.n_bytes,
        "bytes_read": use.bytes_read,
        "kernel": use.kernel,
    }
