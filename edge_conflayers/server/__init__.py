"""An HTTP server that answers as OpenAI's API does.

- ``bodies``: what requests hold
- ``asking``: requests as texts that are asked for
- ``jobs``: work in threads, whose results come to the event loop
- ``serving``: models, their slots and their queues
- ``replies``: what is added to results: timings, who drafted what, usage
- ``embedding``: embeddings of texts
- ``routes``: the addresses
- ``page``: the files of the page for people, as browsers get them
- ``guards``: keys, sizes of bodies, faults
- ``failures``: what goes wrong, as OpenAI's error objects
- ``metrics``: counts for Prometheus
- ``app``: all of it as an ASGI application
- ``running``: the process that serves it, up to its end
"""
