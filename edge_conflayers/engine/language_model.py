"""What every engine's model offers: llama.cpp's, and the exported ones of ONNX Runtime."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING

from edge_conflayers.engine.vocabulary import Vocabulary

if TYPE_CHECKING:
    from edge_conflayers.engine.session.text_session import TextSession


class LanguageModel(Vocabulary):
    """A model that texts can be written with. Close it, or use it in a ``with`` statement.

    Attributes:
        n_layer: layers.
        n_embd: width of the hidden states.
        n_ctx_train: tokens of the longest text that it was trained for.
        gpu_layers: layers that were to go to a GPU by llama.cpp; -1 for all.
        kv_value_bytes: bytes of a value in its sessions' KV caches, by default.
        changes: what it was loaded with that changes its logits by more than rounding, such as an
            adapter, as a key for what is learned about it; "" for nothing.
        longest: tokens of the longest text that its graph has positions for; None for any.
        shows_states: whether its steps can show hidden states, and go on from given ones.
    """

    n_layer: int
    n_embd: int
    n_ctx_train: int
    gpu_layers: int = 0
    kv_value_bytes: float = 2.0
    changes: str = ""
    shows_states: bool = True
    longest: int | None = None

    @property
    @abstractmethod
    def on_gpu(self) -> bool:
        """Whether layers of it are to be on a GPU."""

    @property
    @abstractmethod
    def forgets(self) -> bool:
        """Whether its memory can be rolled back."""

    @property
    @abstractmethod
    def arithmetic(self) -> str:
        """What computes its steps: beside the machine, their bits and time depend on it."""

    @abstractmethod
    def open_session(
        self, *, n_ctx: int | None = None, threads: int | None = None, max_outputs: int = 32
    ) -> TextSession:
        """Opens a session, for one text after another.

        Args:
            n_ctx: size of the context in tokens, as ``context_for``'s ``wanted``.
            threads: CPU threads; None for the machine's physical cores.
            max_outputs: most tokens of one step whose logits are kept.

        Raises:
            BadInput: a number out of range, or no memory for the context.
        """
