"""Whether a tokenizer reads texts as the one that a model was trained with.

Tokenizers have changed between versions of transformers without a word, and a model then reads other tokens than it was
trained on. `run.json` keeps what hard texts become, by which that is noticed.
"""

from tl_hub.model_types import Tokenizer
from tl_hub.record import RunRecord

_ADDED = 200
"""Most added tokens that are looked at; T5 has a hundred."""
_TEXTS = (
    # Case, accents and the forms of Unicode.
    "The Quick BROWN Fox",
    "ISTANBUL İstanbul ıstanbul",
    "Straße STRASSE Maße",
    "naïve café résumé",
    "cafe\u0301 e\u0302\u0323",
    "Ångström Å \u212b",
    "ﬁne ﬂuﬀ oﬃce",
    "ｆｕｌｌ ｗｉｄｔｈ １２３",
    "x² + y³ = z¹ ½",
    "№ ™ ® ℃ Ⅷ",
    "Œuvre æon ĳs",
    "ÀÉÎÕÜ àéîõü",
    # Blanks and what looks like none.
    "two  blanks   three",
    " before and after ",
    "a\ttab",
    "one\ntwo\n\nthree",
    "no\u00a0break",
    "zero\u200bwidth\u200djoin",
    "thin\u2009and\u3000wide",
    "soft\u00adhyphen",
    "\ufeffmark",
    "carriage\r\nreturn",
    # Digits and punctuation.
    "0123456789",
    "1,234,567.89",
    "3.14159 and 1e-10",
    "2026-11-30 12:59",
    "it's don't we'll I'M",
    "(a) [b] {c} <d>",
    "wait... what?! -- yes",
    "“quoted” ‘single’ «guillemets»",
    "a/b\\c|d_e-f",
    "$5 €6 £7 ¥8 100%",
    "#tag &amp; `code`",
    "!!!???;;;:::",
    "\u2581under\u0120marks##piece",
    # Scripts.
    "서울은 대한민국의 수도이다.",
    "\u1112\u1161\u11ab\u1100\u1173\u11af",
    "東京は日本の首都です。",
    "ﾊﾝｶｸ カタカナ ひらがな",
    "北京是中国的首都",
    "Москва — столица России",
    "Η Αθήνα είναι",
    "שלום עולם",
    "שָׁלוֹם",
    "مرحبا بالعالم",
    "مُحَمَّد ١٢٣",
    "नमस्ते दुनिया",
    "สวัสดีชาวโลก",
    "Tiếng Việt",
    # What few vocabularies hold.
    "😀 🎉 ❤️",
    "👨\u200d👩\u200d👧 👍🏽 🇩🇪",
    "𝔘𝔫𝔦𝔠𝔬𝔡𝔢 𝒙 = 𝟙",
    "𓀀 𒀀 ꙮ",
    "\x07bell \x7f",
    "unbelievablyantidisestablishmentarianism" * 2,
)


def token_ids(tokenizer: Tokenizer) -> dict[str, str]:
    """What hard texts become: text -> numbers of its tokens, with blanks between them.

    The last text is made of the tokens that were added to the vocabulary, by their numbers.
    """
    added = sorted(tokenizer.get_added_vocab().items(), key=lambda item: item[1])[:_ADDED]
    texts = [*_TEXTS, " ".join(token for token, _ in added)]
    return dict(zip(texts, _read(texts, tokenizer), strict=True))


def drift(record: RunRecord | None, tokenizer: Tokenizer) -> str | None:
    """A line on what a tokenizer reads otherwise than that of a run did; None where it does not, or nobody knows."""
    if record is None or not record.token_ids:
        return None
    found = _read(list(record.token_ids), tokenizer)
    other = [(text, ids, now) for (text, ids), now in zip(record.token_ids.items(), found, strict=True) if ids != now]
    if not other:
        return None
    text, ids, now = min(other, key=lambda each: len(each[0]))
    by = [f"{name} {record.software[name]}" for name in ("transformers", "tokenizers") if name in record.software]
    trained = f" (by {' and '.join(by)})" if by else ""
    return (
        f"the tokenizer reads {len(other)} of {len(found)} texts otherwise than in training{trained}, so results may "
        f"differ: {ascii(text)[:60]} was {ids[:60]}, and is {now[:60]} here"
    )


def _read(texts: list[str], tokenizer: Tokenizer) -> list[str]:
    encoded = tokenizer(texts, padding=False, truncation=False, verbose=False)["input_ids"]
    return [" ".join(map(str, ids)) for ids in encoded]
