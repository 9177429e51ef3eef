"""Texts on which tokenizers are compared: the same at every run."""

# ruff: noqa: RUF001
from __future__ import annotations

import random
import sys
import unicodedata
from collections.abc import Sequence

CODE = (
    "def f(x):\n\treturn {k: v**2 for k, v in x.items() if k != 'a'}  # squares\n",
    "for (int i = 0; i < n; ++i) {\n    a[i] += b[i] * 0x1F;\n}\r\n",
    "SELECT id, COUNT(*) FROM t WHERE name LIKE '%o''k%' GROUP BY 1;",
    '<div class="row">\n  <p>It&#39;s <b>bold</b></p>\n</div>\n\n\n',
    'fn main() { println!("{:?}", vec![1u8; 3].iter().map(|x| x + 1)); }',
    "if [ -z \"$1\" ]; then\n  echo >&2 'usage: $0 FILE'; exit 1\nfi",
    '{"a": [1, 2.5e-10, null, true], "b\\n": "\\u00e9"}',
    "template <typename T> T max(T a, T b) { return a>b?a:b; } // <--->",
    "        return self.__class__.__name__\n\n\nclass B(A):\n    pass",
    "\\begin{equation} \\frac{a_1}{b^{2}} \\neq \\alpha \\end{equation}",
    "camelCase PascalCase snake_case SCREAMING_SNAKE HTTPServer2xx iPhone",
    "#include <stdio.h>\n#define X(a,b) (a##b)\n/* ---- ==== **** */",
    "https://example.org/a/b?c=d&e=%20f#g user@example.com C:\\temp\\new",
    "diff --git a/x b/x\n@@ -1,2 +1,3 @@\n-old\n+new\n \n",
)
SCRIPTS = (
    "The quick brown fox doesn't jump; they've said I'LL see, we'D go, it'S y'all's.",
    "Voilà: l'été, ça coûte œuvre; naïve façade — «déjà vu».",
    "Größe, Fußgängerübergänge, Straße; 'ß' → 'ẞ'.",
    "Příliš žluťoučký kůň úpěl ďábelské ódy.",
    "Ξεσκεπάζω τὴν ψυχοφθόρα βδελυγμία.",
    "Съешь же ещё этих мягких французских булок, да выпей чаю.",
    "نص حكيم له سر قاطع وذو شأن عظيم؛ مكتوب، ٣٤٥٦.",
    "דג סקרן שט בים מאוכזב ולפתע מצא חברה.",
    "ऋषियों को सताने वाले दुष्ट राक्षसों के राजा रावण।",
    "বিসমিল্লাহির রাহমানির রাহিম ১২৩৪৫",
    "தமிழ் மொழி ௧௨௩ இனிமையானது",
    "เป็นมนุษย์สุดประเสริฐเลิศคุณค่า ๑๒๓",
    "키스의 고유조건은 입술끼리 만나야 하고 ㄱㄴㄷ",
    "いろはにほへと ちりぬるを、カタカナ・テスト！「引用」",
    "视野无限广，窗外有蓝天。他说：“你好！”……1234万",
    "繁體中文測試ㄅㄆㄇㄈ，㐀㐁𠀀𠀁𪜀",
    "ქართული ენა და Ⴀ Ⴁ ᲐᲑ",
    "የአማርኛ ጽሑፍ፡፡ ፩፪፫",
    "Tiếng Việt có dấu: ngữ, quyển, đường.",
    "İstanbul'da ığüşöç; TÜRKÇE'nin ekleri.",
    "Հայերեն տեքստ։ Ողջույն",
    "ភាសាខ្មែរ ၁၂၃ မြန်မာ ລາວ",
)
EMOJI = ("😀", "👍🏽", "👩‍👩‍👧‍👦", "🇩🇪🇫🇷", "1️⃣#️⃣", "❤️‍🔥", "🏴󠁧󠁢󠁥󠁮󠁧󠁿", "☺︎☺️", "🫠🪿🫨", "™©®↔️")
SPACES = (
    " ",
    "  ",
    "   ",
    "\t",
    "\t\t ",
    "\n",
    "\n\n",
    "\r\n",
    "\r\n\r\n",
    "\r",
    " \n",
    "\n ",
    " \n \n",
    "\u00a0",
    "\u00a0\u00a0 ",
    "\u2003",
    "\u2009 \u2009",
    "\u3000",
    "\u3000\u3000",
    "\u2028",
    "\u2029\n",
    "\u0085",
    "\v\f",
    "\u200b",
    "\ufeff",
    "\u180e",
    "\u1680",
    "\u202f",
    "\u205f",
    " " * 7,
    " " * 16,
    " " * 33,
    " " * 70,
    "\n" * 5,
    "\n" * 40,
    "\t" * 35,
    " \t \t\n\t ",
    "\u2581",
    "\u2581\u2581",
    " \u2581 ",
)
CONTROLS = (
    "\x00",
    "\x01\x02",
    "\x07",
    "\x08",
    "\x1b[31m",
    "\x1c\x1d\x1e\x1f",
    "\x7f",
    "\x80\x9f",
    "\xad",
    "\x04",
    "+\x04+",
    "a\x13b",
    "\x14\x16\x06",
)
ODD = (
    "\ufffd",
    "\ufffd\ufffd",
    "\uffff",
    "\ufdd0",
    "\U0010ffff",
    "\ue000\uf8ff",
    "\U000f0000",
    "\u0378\u0379",
    "\U000e0001",
    "\u0301",
    "\u0301\u0302a",
    "a\u0301\u0327\u0300",
    "\u20dd",
    "Z\u0351\u036b\u0343a\u035b\u0321l\u0328g\u0334o\u0489",
    "\u202eabc\u202c",
    "\u2066x\u2069",
    "Ã©Ã¨â€™",
    "\xc3\x28",
    "\xf0\x28\x8c\xbc",
    "\u017f's '\u017f 'S \u212a",
    "ﬁﬂ ǅ ǈ ʰ ª º",
    "Ａｂｃ１２３！",
    "①②③ Ⅷ ⅷ ½ ¼ ² ³ ₁₂",
    "𝐀𝒃𝕔 𝟘𝟙𝟚",
    "٠١٢٣ ०१२३ ๐๑๒ ０１２",
    "\U00010400\U00010428",
    "don’t ‘quoted’ “x” … – — ¡¿",
    "$100 €5 £3 ¥4 +1 <2 >3 =4 ^5 ~6 |7 `8`",
    "a,b.c;d:e!f?g",
)
NUMBERS = (
    "0",
    "12",
    "123",
    "1234",
    "12345",
    "123456",
    "1234567",
    "1,234,567.89",
    "3.14159",
    "-1e-5",
    "0xDEADBEEF",
    "2026-11-28T09:46:44Z",
    "192.168.0.1",
    "+49 (0)30 123456",
    "1st 2nd 10%",
)
_JOINTS = ("", "", " ", "  ", "\n", "\t", "'", "-", "1", "a", "\u00a0", ".", "\r\n")


def _units() -> tuple[str, ...]:
    return (*CODE, *SCRIPTS, *EMOJI, *SPACES, *CONTROLS, *ODD, *NUMBERS)


def _random_text(source: random.Random) -> str:
    """Characters drawn from anywhere in Unicode, near each other.

    Only those that all tokenizers' tables have: llama.cpp takes the characters of Unicode 16 for
    unassigned.
    """
    ranges = ((0, 0x80), (0x80, 0x250), (0, 0x3000), (0x3000, 0x10000), (0x10000, 0x20000))
    first, last = source.choice((*ranges, (0, sys.maxunicode + 1)))
    characters = [chr(source.randrange(first, last)) for _ in range(source.randrange(1, 60))]
    known = unicodedata.ucd_3_2_0
    return "".join(each for each in characters if known.category(each) not in ("Cn", "Cs"))


def corpus(special: Sequence[str] = (), *, n: int = 1600) -> list[str]:
    """At least ``n`` different texts: each unit alone, all units in Unicode's two forms, and random
    mixes of units and of characters.

    Args:
        special: names of special tokens, to be among the units.
    """
    source = random.Random(18)
    units = (*_units(), *special)
    texts = ["", *units]
    texts += [unicodedata.normalize(form, each) for form in ("NFC", "NFD") for each in units]
    texts += [f"{space}{each}{space}" for each in SCRIPTS for space in SPACES[:12]]
    found = dict.fromkeys(texts)
    while len(found) < n:
        if source.random() < 0.3:
            text = _random_text(source)
        else:
            parts = [source.choice(units) for _ in range(source.randrange(2, 8))]
            text = "".join(part + source.choice(_JOINTS) for part in parts)
        if source.random() < 0.2:
            text = unicodedata.normalize("NFD", text)
        found[text] = None
    return list(found)
