"""Requests for texts, and the texts as typed results while they are written.

What the Python interface, the drop-in for llama-cpp-python and the HTTP server have in common:

- ``request``: a text that is asked for: prompt, sampling, stop strings, logprobs
- ``chat``: messages, tools and a response format as such a request
- ``writing``: writes one, token by token
- ``logprobs``: probabilities of its tokens
- ``tool_calls``: which tools an answer calls
- ``openai``: results as the OpenAI API has them
- ``completion``, ``answers``: writes a completion or an answer, as such results
- ``slots``: several texts over one model, each with its cache
"""
