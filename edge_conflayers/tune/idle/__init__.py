"""Goes on teaching a next-state head while nobody waits for an answer.

A process of its own teaches, so that stopping it (SIGSTOP) is a matter of microseconds whatever it
is doing, and leaves the process that answers all of its threads, locks and caches:

- ``teacher``: starts, stops and continues it, tells it what was said, and keeps what it finds
- ``process``: what runs in it
- ``rounds``: writing, learning and testing in turn
- ``messages``: what the two tell each other
"""
