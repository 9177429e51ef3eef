"""Answers, as ``llama_cpp.Llama`` returns them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from edge_conflayers.completions.answers import answer, answer_chunks
from edge_conflayers.completions.chat import chat_request
from edge_conflayers.completions.openai import Header
from edge_conflayers.completions.request import TextRequest
from edge_conflayers.engine.native import binding_module
from edge_conflayers.llama.errors import BadValue, as_value_errors
from edge_conflayers.llama.sampling import settings
from edge_conflayers.llama.texts import LlamaTexts, _callbacks, _strings

if TYPE_CHECKING:
    from llama_cpp.llama_types import (
        CreateChatCompletionResponse,
        CreateChatCompletionStreamResponse,
    )

_OWN_TEMPLATE = "chat_template.default"
_WITHOUT_TEMPLATE = "llama-2"  # as llama-cpp-python has it


class LlamaChats(LlamaTexts):
    """The methods that write answers.

    They go by the template in the model's file. Where ``chat_format`` or ``chat_handler`` is given,
    that one of llama-cpp-python's makes the prompt and the answer instead.
    """

    chat_format: str | None
    chat_handler: Any

    def create_chat_completion(
        self,
        messages: Sequence[Mapping[str, Any]],
        functions: list[Any] | None = None,
        function_call: Any = None,
        tools: list[Any] | None = None,
        tool_choice: Any = None,
        temperature: float = 0.2,
        top_p: float = 0.95,
        top_k: int = 40,
        min_p: float = 0.05,
        typical_p: float = 1.0,
        stream: bool = False,
        stop: str | list[str] | None = None,
        seed: int | None = None,
        response_format: Mapping[str, Any] | None = None,
        max_tokens: int | None = None,
        presence_penalty: float = 0.0,
        frequency_penalty: float = 0.0,
        repeat_penalty: float = 1.0,
        tfs_z: float = 1.0,
        mirostat_mode: int = 0,
        mirostat_tau: float = 5.0,
        mirostat_eta: float = 0.1,
        model: str | None = None,
        logits_processor: Any = None,
        grammar: Any = None,
        logit_bias: Mapping[Any, float] | None = None,
        logprobs: bool | None = None,
        top_logprobs: int | None = None,
    ) -> CreateChatCompletionResponse | Iterator[CreateChatCompletionStreamResponse]:
        """Writes the answer to messages.

        Args:
            messages: with ``role`` and ``content``.
            functions, function_call: of OpenAI's earlier API; as ``tools`` and ``tool_choice``.
            tools: functions that the answer may call.
            tool_choice: "auto", "none", "required", or the function that must be called.
            response_format: ``{"type": "json_object"}``, with a ``schema`` or without, or
                ``{"type": "json_schema", "json_schema": {"schema": ...}}``.
            logprobs: whether to tell how likely tokens were.
            top_logprobs: how many of the likeliest tokens to tell at each place.

        The others are as for ``create_completion``.

        Raises:
            ValueError: arguments that cannot be used, or messages that fill the context.
        """
        sampling: dict[str, Any] = {
            "temperature": temperature,
            "top_p": top_p,
            "top_k": top_k,
            "min_p": min_p,
            "typical_p": typical_p,
            "presence_penalty": presence_penalty,
            "frequency_penalty": frequency_penalty,
            "repeat_penalty": repeat_penalty,
            "mirostat_mode": mirostat_mode,
            "mirostat_tau": mirostat_tau,
            "mirostat_eta": mirostat_eta,
            "grammar": grammar,
            "logit_bias": logit_bias,
        }
        handler = self._handler()
        if handler is not None:
            return handler(
                llama=self,
                messages=messages,
                functions=functions,
                function_call=function_call,
                tools=tools,
                tool_choice=tool_choice,
                stream=stream,
                stop=list(_strings(stop)),
                seed=seed,
                response_format=response_format,
                max_tokens=max_tokens,
                model=model,
                logits_processor=logits_processor,
                logprobs=logprobs,
                top_logprobs=top_logprobs,
                tfs_z=tfs_z,
                **sampling,
            )
        if functions is not None:
            tools = [{"type": "function", "function": each} for each in functions]
        if function_call is not None:
            tool_choice = function_call
            if isinstance(function_call, Mapping):
                tool_choice = {"type": "function", "function": function_call}
        generator = self._generator
        with as_value_errors():
            settled = settings(
                seed=self._text_seed(seed), last_n=self.last_n_tokens_size, **sampling
            )
            request = chat_request(
                generator.model,
                messages,
                TextRequest(
                    (),
                    settled,
                    stop=_strings(stop),
                    logprobs=(top_logprobs or 0) if logprobs else None,
                    errors="ignore",
                ),
                tools=tools,
                tool_choice=tool_choice,
                response_format=response_format,
            )
            prompt = request.text.prompt
            request = request.with_text(
                max_tokens=self._room(len(prompt), max_tokens),
                **_callbacks(prompt, logits_processor, None),
            )
        header = Header(model or self.model_path)
        if stream:
            return answer_chunks(self._write, generator.model, request, header)
        return answer(self._write, generator.model, request, header)

    def create_chat_completion_openai_v1(self, *args: Any, **kwargs: Any) -> Any:
        """The same as objects of the ``openai`` package, which must be installed."""
        try:
            from openai.types.chat import ChatCompletion, ChatCompletionChunk
        except ImportError:
            raise ImportError(
                "create_chat_completion_openai_v1 needs the openai package: `pip install openai`"
            ) from None
        found: Any = self.create_chat_completion(*args, **kwargs)
        if kwargs.get("stream"):
            return (ChatCompletionChunk(**chunk) for chunk in found)
        return ChatCompletion(**found)

    def _handler(self) -> Any:
        """llama-cpp-python's handler of a chat format; None for the model's own template."""
        if hasattr(self.chat_handler, "clip_model_path"):
            raise BadValue(
                "images need llama.cpp's mtmd, which is not part of this library; use"
                " llama_cpp.Llama for them"
            )
        if self.chat_handler is not None:
            return self.chat_handler
        name = self.chat_format
        if name is None and self._generator.model.chat_template is None:
            name = _WITHOUT_TEMPLATE
        if name in (None, _OWN_TEMPLATE):
            return None
        return binding_module("llama_chat_format").get_chat_completion_handler(name)
