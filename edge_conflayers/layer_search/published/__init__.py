"""The published searches for skip sets, one file a paper, to compare with.

- ``conflayers``, ``conflayers_selection``: ConfLayers (arXiv 2604.14612)
- ``swift``: SWIFT (arXiv 2410.06916); ``gaussian_process`` is its Bayesian optimisation
- ``clasp``: CLaSp (arXiv 2505.24196)
- ``knapspec``: KnapSpec (arXiv 2602.20217)
- ``similar_paths``, ``layer_runner``: the dynamic programming that CLaSp and KnapSpec share, and
  what runs hidden states through single layers for them and for DEL
"""
