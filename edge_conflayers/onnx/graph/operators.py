"""What a target's operators have to do for the layers of a model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol

from edge_conflayers.onnx.architecture import Architecture
from edge_conflayers.onnx.graph.builder import Graph, Value
from edge_conflayers.onnx.rope import Rope
from edge_conflayers.onnx.weights import Planned


@dataclass(frozen=True)
class Inputs:
    """A graph's inputs.

    Attributes:
        ids: int64 [batch_size, sequence_length].
        attention_mask: int64 [batch_size, total_sequence_length].
        past_keys, past_values: for each layer, [batch_size, n_head_kv, past_sequence_length,
            head_dim].
    """

    ids: Value
    attention_mask: Value
    past_keys: tuple[Value, ...]
    past_values: tuple[Value, ...]


class Cache(NamedTuple):
    """A layer's keys and values: those of earlier steps, or with the new ones."""

    keys: Value
    values: Value


class Operators(Protocol):
    """The operators of one target.

    Args:
        dtype: ONNX type of activations, keys and values.

    Attributes:
        turned: whether it wants matrices kept by columns.
        takes_packed: whether attention takes queries, keys and values in one value.
        contrib: whether it uses ONNX Runtime's own domain.
    """

    turned: bool
    takes_packed: bool
    contrib: bool

    def check(self, architecture: Architecture) -> None:
        """Refuses what they can't do.

        Raises:
            BadInput: a size that an operator doesn't take.
        """

    def prepare(self, graph: Graph, inputs: Inputs, tables: dict[Rope, Cache]) -> None:
        """Adds what all layers share.

        Args:
            tables: cosines (as keys) and sines (as values) of each rotation.
        """

    def embedding(self, graph: Graph, ids: Value, matrix: Planned) -> Value:
        """The rows of a matrix that tokens name: [batch_size, sequence_length, columns]."""

    def product(self, graph: Graph, x: Value, matrix: Planned) -> Value:
        """What a matrix makes of the vectors x: [batch_size, sequence_length, rows]."""

    def silu_gated(self, graph: Graph, gate: Value, up: Value) -> Value:
        """silu(gate) * up."""

    def attention(
        self,
        graph: Graph,
        architecture: Architecture,
        layer: int,
        qkv: tuple[Value, ...],
        past: Cache,
    ) -> tuple[Value, Cache]:
        """Attention with rotation.

        Args:
            qkv: queries, keys and values, [batch_size, sequence_length, heads * head_dim], or one
                value that holds them side by side.

        Returns:
            what is seen, as queries, and the cache with the new keys and values.
        """

    def skipped(self, graph: Graph, past: Cache) -> Cache:
        """The cache after a step that left the layer's attention out: as long as other layers',
        with nothing that counts in the new places."""
