"""LayerSkip's training recipe (arXiv 2404.16710): models whose early exits draft well."""
