"""A text of an exported model: what the loop and drafters ask of a session, on ONNX Runtime.

The cache's positions are counted here, so that rolling back is a number that becomes smaller.
Steps under a mask leave positions behind that the next step overwrites, or that are put back.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_conflayers import machine
from edge_conflayers.engine import binding
from edge_conflayers.engine.closing import Closing
from edge_conflayers.engine.draft import Draft, ExitStates
from edge_conflayers.engine.session.checks import (
    check_exit,
    check_positions,
    check_prompt,
    check_step,
)
from edge_conflayers.engine.session.kv_cache import check_memory, context_for
from edge_conflayers.engine.session.mask import NO_MASK, LayerMask
from edge_conflayers.engine.session.read_batches import ReadBatches, shared_tokens
from edge_conflayers.engine.session.results import (
    MOST_WRITTEN,
    Confidences,
    GraphStats,
    Outputs,
    Stretch,
)
from edge_conflayers.engine.session.saved_text import SavedText
from edge_conflayers.errors import BadInput, EdgeConflayersError
from edge_conflayers.limits import MOST_INT32, check_number
from edge_conflayers.onnx import masked, rows
from edge_conflayers.onnx.exact import ROOM, WHY_PLAIN, Exactness, exactness, run_plain
from edge_conflayers.onnx.model import OnnxModel
from edge_conflayers.onnx.plain import write
from edge_conflayers.onnx.steps import Steps

_BATCH = 512  # tokens of a prompt in one run, as for llama.cpp's sessions
# Most bytes of attention's scores in one run, which ONNX Runtime allocates for the whole context;
# not tuned.
_SCORES = 1 << 28
_STATES_UNSEEN = "an exported model shows no hidden states"


class OnnxSession(Closing):
    """A text of an exported model, in a cache of its own.

    Args:
        model: must stay open as long as the session.
        n_ctx: size of the context in tokens, as ``context_for``'s ``wanted``.
        threads: CPU threads; None for the machine's physical cores.
        max_outputs: most tokens of one step whose logits are kept.

    Raises:
        BadInput: a number out of range, or a context that does not fit in memory or in the graph's
            positions.
    """

    draft_vocabulary: tuple[int, ...] = ()

    def __init__(
        self,
        model: OnnxModel,
        *,
        n_ctx: int | None = None,
        threads: int | None = None,
        max_outputs: int = 32,
    ) -> None:
        check_number("max_outputs", max_outputs, 1, MOST_INT32, whole=True)
        self._model = model
        self._n_ctx = context_for(model, 0, 0, n_ctx)
        if self._n_ctx > model.n_ctx_train:
            raise BadInput(
                f"{model.path} has positions for {model.n_ctx_train} tokens, not {self._n_ctx};"
                f" give -c {model.n_ctx_train} or less"
            )
        check_memory(model, self._n_ctx)
        self._threads = machine.threads_to_use(threads)
        self._max_outputs = min(max_outputs, self._n_ctx)
        self.tokens: list[int] = []
        self._mask = NO_MASK
        heads = model.hyperparameter("attention.head_count", 1)
        self._batch = max(1, min(_BATCH, _SCORES // (4 * heads * self._n_ctx)))
        self._read = ReadBatches(self._batch)
        self._kept: npt.NDArray[np.float32] | None = None  # logits of the last step
        self._open_steps: Steps | None = Steps(
            model,
            n_ctx=self._n_ctx + ROOM,
            threads=self._threads,
            most_kept=self._max_outputs + ROOM,
        )

    @property
    def _steps(self) -> Steps:
        if self._open_steps is None:
            raise EdgeConflayersError("the session is closed; open a new one")
        return self._open_steps

    @property
    def model(self) -> OnnxModel:
        return self._model

    @property
    def n_ctx(self) -> int:
        return self._n_ctx

    @property
    def threads(self) -> int:
        return self._threads

    @property
    def max_outputs(self) -> int:
        return self._max_outputs

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def room(self) -> int:
        return self._n_ctx - len(self.tokens)

    @property
    def mask(self) -> LayerMask:
        return self._mask

    def set_mask(self, mask: LayerMask) -> None:
        """See ``TextSession.set_mask``."""
        self._steps.set_mask(mask)
        self._mask = mask

    # Steps

    def step(self, tokens: Sequence[int], *, outputs: Outputs = "last") -> None:
        """See ``TextSession.step``. A step over one token is made as ``exact`` says."""
        n = len(tokens)
        check_step(self, n, outputs)
        begin = len(self.tokens)
        if n == 1 and not self._mask:
            found = run_plain(self._steps, self._exact.plain, tokens[0], begin)[np.newaxis]
        else:
            found = self._steps.run(tokens, begin, n if outputs == "all" else 1)
        self._kept = None if outputs == "none" else found
        self.tokens.extend(tokens)

    def read(
        self, tokens: Sequence[int], *, before_batch: Callable[[], None] = lambda: None
    ) -> None:
        """See ``TextSession.read``. After an interrupt between batches, the session holds the
        batches that were read."""
        check_prompt(self, len(tokens))
        for begin in range(0, len(tokens), self._batch):
            before_batch()
            part = tokens[begin : begin + self._batch]
            at = len(self.tokens)
            self._kept = self._steps.run(part, at, 1)
            self.tokens.extend(part)
            if not self._mask:
                self._read.read(at, len(part))

    def verify(self, pending: Sequence[int], draft: Draft) -> None:
        """See ``TextSession.verify``; of chains only."""
        if not draft.is_chain:
            raise EdgeConflayersError("an exported model verifies chains of tokens, no trees")
        self.step([*pending, *draft.tokens], outputs="all")

    def write(
        self,
        pending: Sequence[int],
        samplers: binding.Samplers,
        *,
        most: int,
        seconds: float,
        watch: Sequence[Any] = (),
        wake_at: float = 1.0,
    ) -> Stretch:
        """See ``TextSession.write``."""
        most = min(most, MOST_WRITTEN, self.room - len(pending) + 1)
        return write(self, pending, samplers, most, seconds, watch, wake_at)

    def rollback(self, length: int) -> None:
        """See ``TextSession.rollback``."""
        del self.tokens[length:]
        self._read.forget(len(self.tokens))

    rewind = rollback

    def held_prefix(self, prompt: Sequence[int], *, exact: bool = True) -> int:
        """See ``KeepsText.held_prefix``."""
        held = self._read.kept if exact else shared_tokens
        return held(self.tokens, prompt)

    def keep_prefix(self, prompt: Sequence[int], *, exact: bool = True) -> int:
        """See ``KeepsText.keep_prefix``."""
        kept = self.held_prefix(prompt, exact=exact)
        self.rollback(kept)
        return kept

    def saved(self) -> SavedText:
        """See ``KeepsText.saved``: the tokens only."""
        return SavedText(tuple(self.tokens))

    def restore(self, saved: SavedText) -> None:
        """See ``KeepsText.restore``: it is all read again."""
        self.clear()

    def clear(self) -> None:
        """See ``TextSession.clear``."""
        self.rollback(0)

    # Logits of the last step

    def logits(self, index: int = -1) -> npt.NDArray[np.float32]:
        """See ``TextSession.logits``."""
        kept = self._kept
        if kept is None or not -len(kept) <= index < len(kept):
            raise EdgeConflayersError(f"the last step kept no logits for token {index}")
        row: npt.NDArray[np.float32] = kept[index]
        return row

    def logits_address(self, index: int) -> int | None:
        """See ``TextSession.logits_address``."""
        kept = self._kept
        if kept is None or not -len(kept) <= index < len(kept):
            return None
        return int(kept[index].ctypes.data)

    def argmax(self, index: int) -> int:
        """See ``TextSession.argmax``."""
        return rows.argmax(self.logits(index))

    def best(self, index: int = -1) -> tuple[int, float]:
        """See ``TextSession.best``."""
        return rows.best(self.logits(index))

    def draw(self, index: int, samplers: binding.Samplers) -> int:
        """See ``TextSession.draw``."""
        return rows.draw(self.logits(index), samplers)

    # What may be verified

    @functools.cached_property
    def _exact(self) -> Exactness:
        return exactness(self._model, self._threads)

    @property
    def most_verified(self) -> int:
        """See ``TextSession.most_verified``."""
        return min(self.room, self._max_outputs, self._exact.most)

    @property
    def verifies_drafts(self) -> bool:
        """See ``TextSession.verifies_drafts``."""
        return self._exact.most > 1

    @property
    def why_plain(self) -> str:
        """See ``TextSession.why_plain``."""
        return WHY_PLAIN

    @property
    def verifies_trees(self) -> bool:
        """See ``TextSession.verifies_trees``."""
        return False

    # Drafts by the model itself

    def set_draft_vocabulary(self, tokens: Iterable[int]) -> None:
        """See ``TextSession.set_draft_vocabulary``: refuses any."""
        if any(True for _ in tokens):
            raise BadInput("the LM head of an exported model cannot be cut down")

    def draft(
        self,
        mask: LayerMask,
        pending: Sequence[int],
        *,
        limit: int,
        stop_probability: float,
        stop_path: float = 0.0,
        least_path: float = 0.0,
        acceptance: Sequence[float] | None = None,
        full_vocabulary: bool = False,
        runners_up: int = 0,
        keep: bool = False,
    ) -> Draft:
        """See ``TextSession.draft``."""
        limit = min(limit, self.room - len(pending) + 1)
        if limit <= 0:
            return Draft()
        stop = masked.Stop(limit, stop_probability, stop_path, least_path, acceptance)
        drafted = masked.draft(self._steps, self, mask, pending, stop, runners_up, keep=keep)
        if keep:
            self.tokens += [*pending, *drafted.draft.tokens][: drafted.read]
        return drafted.draft

    def draft_exit(
        self, exit_layer: int, pending: Sequence[int], *, limit: int, stop_probability: float
    ) -> Draft:
        """See ``TextSession.draft_exit``."""
        n_layer = self._model.n_layer
        check_exit(exit_layer, n_layer)
        mask = LayerMask.layers(range(exit_layer, n_layer))
        draft = self.draft(mask, pending, limit=limit, stop_probability=stop_probability)
        # No states to go on from: verification runs all layers.
        states = np.empty((0, self._model.n_embd), dtype=np.float32)
        return replace(draft, exit=ExitStates(exit_layer, states)) if draft.tokens else draft

    # Along the text that is there

    def replay(
        self,
        mask: LayerMask,
        begin: int,
        end: int | None = None,
        *,
        stretch: int | None = None,
    ) -> list[tuple[int, float]] | None:
        """See ``TextSession.replay``."""
        end = len(self.tokens) if end is None else end
        check_positions(begin, end, len(self.tokens))
        self._kept = None
        return masked.replay(self._steps, self, mask, begin, end, stretch)

    def probe(self, window: Sequence[int]) -> Confidences | None:
        """See ``TextSession.probe``; the confidences are those of ``masked.probe``."""
        if len(window) > self._n_ctx:
            return None
        self._kept = None
        return masked.probe(self._steps, self, window)

    def probe_stream(self, layer: int, where: int, n_tokens: int) -> npt.NDArray[np.float32]:
        """See ``TextSession.probe_stream``: refuses."""
        raise EdgeConflayersError(_STATES_UNSEEN)

    def graph_stats(self) -> GraphStats:
        """See ``TextSession.graph_stats``: the one graph is built as the model is loaded."""
        return GraphStats(0, 0.0, 1)

    def close(self) -> None:
        """See ``TextSession.close``."""
        self._open_steps = None
        self._kept = None
