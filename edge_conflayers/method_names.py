"""The methods by name, for help and shell completion, which load no library."""

from __future__ import annotations

METHOD_NAMES = {
    "auto": "each round, whoever is expected to be fastest, or nobody",
    "plain": "no drafts: token by token",
    "conflayers": "drops layers by the confidence of drafts",
    "swift": "drops layers by a search over the text so far",
    "measured": "drops the layers that pay most by measured costs",
    "bridged": "replaces layers by a map that `tune` has taught",
    "clasp": "drops layers whose states change least",
    "knapspec": "drops layers by a knapsack of costs and states",
    "layerskip": "leaves after the first half of the layers",
    "del": "leaves after a layer that it chooses as it goes",
    "dssd": "leaves where exits that `tune --exits` has taught are sure",
    "lookup": "repeats what followed the same words in prompt or text",
    "recycling": "tokens that were runners-up before",
    "draft-model": "a second model drafts (--draft-model)",
    "auto-draft-model": "auto, with a second model as well (--draft-model)",
}
"""What drafts in each, in a few words. ``methods.METHODS`` makes them."""
