"""What of a cache's text can be kept for the next prompt without a change of bits.

A token's keys and values depend in their last bits on the batch that it was read in. Prompts are
read in batches of one size from their beginning, so a whole batch that two prompts share has the
same bits in both. What was written token by token, and a prompt's last, shorter batch, have not.
"""

from __future__ import annotations

from collections.abc import Sequence


class ReadBatches:
    """Counts the tokens at a text's beginning that were read in whole batches.

    Args:
        batch: tokens of a whole one.
    """

    def __init__(self, batch: int) -> None:
        self._batch = batch
        self._end = 0

    def read(self, begin: int, n: int) -> None:
        """Takes note of a batch of a prompt."""
        if begin == self._end and n == self._batch:
            self._end += n

    def restore(self, end: int) -> None:
        """Takes note of a text that was put back."""
        self._end = end // self._batch * self._batch

    def forget(self, length: int) -> None:
        """Takes note that the text is cut to a length."""
        self._end = min(self._end, length // self._batch * self._batch)

    @property
    def end(self) -> int:
        """How many tokens these are."""
        return self._end

    def kept(self, text: Sequence[int], prompt: Sequence[int]) -> int:
        """Tokens of a text that reading a prompt would give again, to the bit: whole batches that
        they share, but for the prompt's last batch, after which its logits are needed."""
        most = min(self._end, (len(prompt) - 1) // self._batch * self._batch)
        for begin in range(0, most, self._batch):
            end = begin + self._batch
            if list(text[begin:end]) != list(prompt[begin:end]):
                return begin
        return max(most, 0)


def shared_tokens(text: Sequence[int], prompt: Sequence[int]) -> int:
    """Tokens at the beginning of both, but for the prompt's last one, after which its logits are
    needed."""
    most = min(len(text), len(prompt) - 1)
    return next((i for i in range(most) if text[i] != prompt[i]), max(most, 0))
