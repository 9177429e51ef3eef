"""What `edge-conflayers doctor` tells: what is here, what a model needs of it, and what to do.

- ``examine``: all of it, in order; what goes wrong becomes a line of the report
- ``library``, ``hardware``: what there is without a model
- ``model_file``, ``steps``, ``memory``, ``quantization``, ``known``: a question about a model each
- ``advice``: what to do next
- ``section``: what each of them gives
"""
