"""How each kind of BPE vocabulary splits text before it merges: a table by the name that GGUF files
give in ``tokenizer.ggml.pre``.

The expressions and flags are llama.cpp's (``llm_tokenizer_bpe`` and ``llama_vocab::impl::load`` in
its src/llama-vocab.cpp); every name is tested against it (tests/onnx/test_pretokenizers.py). Where
llama.cpp differs from the tokenizer that a model was trained with, so does this table: the folder
must read a text as the GGUF file does.
"""

from __future__ import annotations

from dataclasses import dataclass

from edge_conflayers.errors import BadInput


@dataclass(frozen=True)
class PreTokenizer:
    """Splits text into pieces that no token crosses.

    Attributes:
        expressions: applied one after the other, each to what the one before left whole; both the
            matches and what is between them become pieces.
        ignore_merges: a piece that is a token is taken as it is, without merging.
    """

    expressions: tuple[str, ...]
    ignore_merges: bool = False


_CONTRACTIONS = r"'s|'t|'re|'ve|'m|'ll|'d"
# Spelled out: (?i:) also matches letters that fold to ASCII ones, such as the long s.
_ANY_CASE = r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])"
_WORD = r"[^\r\n\p{L}\p{N}]?\p{L}+"
_SYMBOLS = r" ?[^\s\p{L}\p{N}]+"
_SPACES = r"\s*[\r\n]+|\s+(?!\S)|\s+"
_SYMBOLS_AND_SPACES = rf"{_SYMBOLS}[\r\n]*|{_SPACES}"
_SYMBOLS_WITH_SLASHES_AND_SPACES = rf"{_SYMBOLS}[\r\n/]*|{_SPACES}"

_GPT2_EXPRESSION = rf"{_CONTRACTIONS}| ?\p{{L}}+| ?\p{{N}}+| ?[^\s\p{{L}}\p{{N}}]+|\s+(?!\S)|\s+"
_UP_TO_THREE_DIGITS = r"\p{N}{1,3}"
_LLAMA3_EXPRESSION = rf"{_ANY_CASE}|{_WORD}|\p{{N}}{{1,3}}|{_SYMBOLS_AND_SPACES}"
_QWEN2_EXPRESSION = rf"{_ANY_CASE}|{_WORD}|\p{{N}}|{_SYMBOLS_AND_SPACES}"

# Letters with cases, as DeepSeek's first tokenizer lists them.
_CASED = (
    "A-Za-z\u00b5\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u01ba\u01bc-\u01bf\u01c4-\u0293\u0295-\u02af"
    "\u0370-\u0373\u0376\u0377\u037b-\u037d\u037f\u0386\u0388-\u038a\u038c\u038e-\u03a1"
    "\u03a3-\u03f5\u03f7-\u0481\u048a-\u052f\u0531-\u0556\u10a0-\u10c5\u13a0-\u13f5\u13f8-\u13fd"
    "\u1c90-\u1cba\u1cbd-\u1cbf\u1d00-\u1d2b\u1d6b-\u1d77\u1d79-\u1d9a\u1e00-\u1f15\u1f18-\u1f1d"
    "\u1f20-\u1f45\u1f48-\u1f4d\u1f50-\u1f57\u1f59\u1f5b\u1f5d\u1f5f-\u1f7d\u1f80-\u1fb4"
    "\u1fb6-\u1fbc\u1fbe\u1fc2-\u1fc4\u1fc6-\u1fcc\u1fd0-\u1fd3\u1fd6-\u1fdb\u1fe0-\u1fec"
    "\u1ff2-\u1ff4\u1ff6-\u1ffc\u2102\u2107\u210a-\u2113\u2115\u2119-\u211d\u2124\u2126"
    "\u2128\u212a-\u212d\u212f-\u2134\u2139\u213c-\u213f\u2145-\u2149\u214e\u2183\u2184"
    "\u2c00-\u2c7b\u2c7e-\u2ce4\u2ceb-\u2cee\u2cf2\u2cf3\ua640-\ua66d\ua680-\ua69b\ua722-\ua76f"
    "\ua771-\ua787\ua78b-\ua78e\uab70-\uabbf\ufb00-\ufb06\ufb13-\ufb17\uff21-\uff3a\uff41-\uff5a"
    "\U00010400-\U0001044f\U000104b0-\U000104d3\U000104d8-\U000104fb\U00010c80-\U00010cb2"
    "\U00010cc0-\U00010cf2\U000118a0-\U000118df\U0001e900-\U0001e943"
)
_HAN_AND_KANA = "[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+"
# U+0800 to U+4E00, without the white space in it: llama.cpp takes that out beforehand.
_FROM_SAMARITAN_TO_HAN = (
    "\u0800-\u167f\u1681-\u1fff\u200b-\u2027\u202a-\u202e\u2030-\u205e\u2060-\u2fff\u3001-\u4e00"
)
_HAN_AND_HANGUL = f"[\u4e00-\u9fa5{_FROM_SAMARITAN_TO_HAN}\uac00-\ud7ff]+"
_DEEPSEEK3_WORDS = (
    r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+"
    r"|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"
)
_BLOOM_EXPRESSION = " ?[^(\\s|.,!?\u2026\u3002\uff0c\u3001\u0964\u06d4\u060c)]+"


def _mixed_case(ending: str = "") -> str:
    """A word, cut before an ASCII capital that follows a lower-case letter."""
    start = r"[^\r\n\p{L}\p{N}]?"
    upper = r"((?=[\p{L}])([^a-z]))"
    lower = r"((?=[\p{L}])([^A-Z]))"
    return rf"{start}{upper}*{lower}+{ending}|{start}{upper}+{lower}*{ending}"


_GPT2 = PreTokenizer((_GPT2_EXPRESSION,))
_STARCODER = PreTokenizer((r"\p{N}", _GPT2_EXPRESSION))
_LLAMA3 = PreTokenizer((_LLAMA3_EXPRESSION,))
_LLAMA3_WHOLE = PreTokenizer((_LLAMA3_EXPRESSION,), ignore_merges=True)
_QWEN2 = PreTokenizer((_QWEN2_EXPRESSION,))
_QWEN35 = PreTokenizer(
    (
        rf"{_ANY_CASE}|[^\r\n\p{{L}}\p{{N}}]?[\p{{L}}\p{{M}}]+|\p{{N}}"
        rf"| ?[^\s\p{{L}}\p{{M}}\p{{N}}]+[\r\n]*|{_SPACES}",
    )
)
_DEEPSEEK_LLM = PreTokenizer(
    (
        r"[\r\n]",
        rf"\s?[{_CASED}]+",
        "\\s?[!-/:-~\uff01-\uff0f\uff1a-\uff5e\u2018-\u201f\u3001-\u3002]+",
        r"\s+$",
        _HAN_AND_HANGUL,
        r"\p{N}+",
    )
)
_DEEPSEEK_CODER = PreTokenizer((r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", _HAN_AND_HANGUL, r"\p{N}"))
_DEEPSEEK3 = PreTokenizer(
    (
        _UP_TO_THREE_DIGITS,
        _HAN_AND_KANA,
        rf"{_DEEPSEEK3_WORDS}| ?[\p{{P}}\p{{S}}]+[\r\n]*|{_SPACES}",
    )
)
_SPARK = PreTokenizer(
    (
        _UP_TO_THREE_DIGITS,
        _HAN_AND_KANA,
        rf"{_DEEPSEEK3_WORDS}| ?[\p{{P}}\p{{S}}]+|[\r\n]|\s+(?!\S)|\s+",
        r"\p{N}",
    )
)
_YOUTU = PreTokenizer(
    (
        "[\uac00-\ud7a3\u3131-\u318e]+"
        "|[\uff01\u2026\u201c\u201d\u2018\u2019\u2014\uff1a\uff1b\uff0c\u3001-\u303f\ufe30-\ufe4f]+"
        "|[\u3105-\u312f]+|[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+",
        rf"[^\r\n\p{{L}}\p{{N}}]?[\p{{L}}\p{{M}}]+{_ANY_CASE}?|\p{{N}}"
        rf"|{_SYMBOLS_WITH_SLASHES_AND_SPACES}",
    ),
    ignore_merges=True,
)
_FALCON = PreTokenizer((r"[\p{P}\$\+<=>\^~\|`]+", _GPT2_EXPRESSION, "[0-9][0-9][0-9]"))
_DEFAULT = PreTokenizer((r"[\p{P}\$\+<=>\^~\|]+", _GPT2_EXPRESSION, r"\p{N}+", "[0-9][0-9][0-9]"))
_BLOOM = PreTokenizer((_BLOOM_EXPRESSION,))
_VIKING = PreTokenizer((_BLOOM_EXPRESSION, r"\p{N}"))
_TEKKEN = PreTokenizer(
    (rf"{_mixed_case()}|\p{{N}}|{_SYMBOLS_WITH_SLASHES_AND_SPACES}",),
    ignore_merges=True,
)
_GPT4O = PreTokenizer(
    (
        rf"{_mixed_case(_ANY_CASE + '?')}|\p{{N}}{{1,3}}"
        rf"|{_SYMBOLS_WITH_SLASHES_AND_SPACES}",
    )
)
_JAIS2 = PreTokenizer(
    (
        rf"{_ANY_CASE}|{_WORD}|\p{{N}}{{1,3}}|{_SYMBOLS}[\r\n]*|\s*[\r\n]+"
        + "".join(rf"|\s{{{n}}}(?!\S)" for n in (512, 256, 128, 64, 32, 16, 8, 4))
        + r"|\s{1,2}(?!\S)|\s{1}",
    )
)
_SEED_CODER = PreTokenizer(
    (rf"{_ANY_CASE}|{_WORD}|\p{{N}}{{1}}| ?[^\s\p{{L}}\p{{N}}\r\n]+|{_SPACES}",)
)
_UFAKZEKA = PreTokenizer((rf"{_WORD}|\p{{N}}|{_SYMBOLS_AND_SPACES}",))
_LAGUNA = PreTokenizer((r"[^\n]+|[\n]+", _QWEN2_EXPRESSION))
_EXAONE_MOE = PreTokenizer(
    (
        rf"{_ANY_CASE}|[^\r\n\p{{L}}\p{{N}}]?(?:\p{{L}}\p{{M}}*(?: \p{{L}}\p{{M}}*)*)+|\p{{N}}"
        rf"|{_SYMBOLS}[\r\n/]?|\s*[\r\n]|\s+(?!\S)|\s+",
    )
)
_MINICPM5 = PreTokenizer(
    (
        _UP_TO_THREE_DIGITS,
        rf"{_ANY_CASE}|{_WORD}|\p{{N}}+|{_SYMBOLS_AND_SPACES}",
    ),
    ignore_merges=True,
)

_ROWS: tuple[tuple[PreTokenizer, str], ...] = (
    (_DEFAULT, "default"),
    (
        _GPT2,
        "gpt-2 phi-2 gigachat a.x-4.0 mellum modern-bert jina-es jina-de jina-v2-es jina-v2-de"
        " mpt olmo jais exaone4 trillion granite-docling",
    ),
    (_STARCODER, "starcoder refact command-r smollm codeshell exaone minerva-7b mellum2"),
    (
        _LLAMA3_WHOLE,
        "llama3 llama-v3 llama-bpe falcon3 falcon-h1 pixtral midm-2.0 lfm2 jina-v5-nano glm4 glm5",
    ),
    (_LLAMA3, "dbrx smaug-bpe chatglm-bpe"),
    (
        _QWEN2,
        "qwen2 deepseek-r1-qwen kormo f2llmv2 stablelm2 megrez hunyuan solar-open grok-2"
        " bailingmoe bailingmoe2 llada-moe",  # otherwise written, the same expression
    ),
    (_QWEN35, "qwen35"),
    (_DEEPSEEK_LLM, "deepseek-llm"),
    (_DEEPSEEK_CODER, "deepseek-coder"),
    (_DEEPSEEK3, "deepseek-v3 hunyuan-dense joyai-llm hy_v4"),
    (_SPARK, "spark2_5"),
    (_YOUTU, "youtu"),
    (_FALCON, "falcon"),
    (_BLOOM, "poro-chat bloom gpt3-finnish"),
    (_VIKING, "viking"),
    (_TEKKEN, "tekken"),
    (_GPT4O, "gpt-4o llama4 kanana2 talkie minimax-m2"),
    (_JAIS2, "jais-2"),
    (_SEED_CODER, "seed-coder"),
    (_UFAKZEKA, "ufakzeka"),
    (_LAGUNA, "laguna"),
    (_EXAONE_MOE, "exaone-moe"),
    (_MINICPM5, "minicpm5"),
)
PRE_TOKENIZERS: dict[str, PreTokenizer] = {
    name: row for row, names in _ROWS for name in names.split()
}
"""By ``tokenizer.ggml.pre``."""


def pre_tokenizer(name: str) -> PreTokenizer:
    """The pre-tokenizer of that name; empty is llama.cpp's default.

    Raises:
        BadInput: no such name is known here.
    """
    found = PRE_TOKENIZERS.get(name or "default")
    if found is None:
        raise BadInput(
            f"the vocabulary's pre-tokenizer '{name}' is unknown to the export;"
            " run the GGUF file itself, or export another model"
        )
    return found
