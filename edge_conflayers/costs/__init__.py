"""What a step costs on this machine: T1, V(n) and c(S), measured and interpolated.

T1 is the time of a full one-token step with its logits; V(n) that of a full step over n tokens with
logits for all of them, over T1; c(S) that of a one-token draft step with the sub-layers of skip set
S dropped, over T1.

- ``model``: the costs at any context length, as everything that decides takes them
- ``measure``: measures them, quickly before the first text or fully for ``tune``
- ``by_weights``: estimates them where nothing was measured
- ``timer``: times steps in turns
- ``interpolate``: straight lines through measured points
- ``report``: what ``edge-conflayers cost`` shows
"""
