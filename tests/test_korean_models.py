"""Small random models of the kinds that Korean ones are: tasks that make sense, and Hangul comes out as it went in.

The kinds are those of klue/bert-base and klue/roberta-base (WordPiece, cased), skt/kogpt2-base-v2 (BPE of words that
start with U+2581, one token for start and end, no tokenizer_config.json), KETI-AIR/ke-t5-small (Unigram) and
paust/pko-t5-small (BPE of bytes). Nothing of theirs is in here.
"""

import json
import runpy
import sys
import unicodedata
from pathlib import Path

import pytest
import tokenizers
import torch
import transformers
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers

import tl_hub
from tl_hub import base_model, card, evaluation
from tl_hub.config import RunConfig
from tl_hub.errors import UserError
from tl_hub.record import RunRecord
from tl_hub.tasks.classification import Classification
from tl_hub.tasks.question_answering import QuestionAnswering
from tl_hub.tasks.question_answering.windows import windows
from tl_hub.tasks.text_generation import TextGeneration
from tl_hub.tokenizer import load_tokenizer

ROOT = Path(__file__).parent.parent
TEXTS = [
    "세종대왕은 1443년에 훈민정음을 만들었다.",
    "한강은 서울을 지나 서해로 흐른다.",
    "이 영화는 배우들의 연기가 좋았고 정말 재미있었다.",
    "음식이 차갑고 점원이 불친절해서 다시 가고 싶지 않다.",
    "박물관은 월요일에 쉬고 토요일에는 저녁까지 연다.",
    "값이 싸고 방이 넓어서 온 가족이 편히 쉬었다.",
]
UNSEEN = "뷁을 본 적이 없다."
GAPS = [f"<extra_id_{i}>" for i in range(100)]


def wordpiece(special: tuple[str, ...] = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")) -> tokenizers.Tokenizer:
    made = tokenizers.Tokenizer(models.WordPiece(unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer(lowercase=False, strip_accents=False)
    made.pre_tokenizer, made.decoder = pre_tokenizers.BertPreTokenizer(), decoders.WordPiece()
    made.train_from_iterator(TEXTS, trainers.WordPieceTrainer(vocab_size=220, special_tokens=list(special)))
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(name, special.index(name)) for name in ("[CLS]", "[SEP]")],
    )
    return made


def wordpiece_of_roberta() -> tokenizers.Tokenizer:
    return wordpiece(("[CLS]", "[PAD]", "[SEP]", "[UNK]", "[MASK]"))


def words_by_bpe() -> tokenizers.Tokenizer:
    made = tokenizers.Tokenizer(models.BPE(unk_token="<unk>"))
    made.normalizer = normalizers.NFKC()
    made.pre_tokenizer, made.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    special = ["<s>", "</s>", "<usr>", "<pad>", "<sys>", "<unk>", "<mask>"]
    made.train_from_iterator(TEXTS, trainers.BpeTrainer(vocab_size=180, special_tokens=special))
    return made


def ending(made: tokenizers.Tokenizer) -> tokenizers.Tokenizer:
    made.post_processor = processors.TemplateProcessing(
        single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", 1)]
    )
    return made


def unigram() -> tokenizers.Tokenizer:
    made = tokenizers.Tokenizer(models.Unigram())
    made.normalizer = normalizers.NFKC()
    made.pre_tokenizer, made.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    special = ["<pad>", "</s>", "<unk>"]
    made.train_from_iterator(TEXTS, trainers.UnigramTrainer(vocab_size=150, special_tokens=special, unk_token="<unk>"))
    made.add_special_tokens(GAPS)
    return ending(made)


def bytes_by_bpe() -> tokenizers.Tokenizer:
    made = tokenizers.Tokenizer(models.BPE())
    made.normalizer = normalizers.NFC()
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    special, alphabet = ["<pad>", "</s>", "<unk>", *GAPS], pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=420, special_tokens=special, initial_alphabet=alphabet)
    made.train_from_iterator(TEXTS, trainer)
    return ending(made)


BERT = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
ROBERTA = {**BERT, "type_vocab_size": 1, "max_position_embeddings": 514}
ROBERTA |= {"bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2}
T5 = {"d_model": 32, "d_kv": 16, "d_ff": 64, "num_layers": 2, "num_heads": 2, "decoder_start_token_id": 0}
T5 |= {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False, "pad_token_id": 0, "eos_token_id": 1}
NAMES = {"eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
KINDS = {
    "klue_bert": (
        wordpiece,
        "BertForMaskedLM",
        BERT,
        {"tokenizer_class": "BertTokenizer", "do_lower_case": False, "model_max_length": 512},
    ),
    "klue_roberta": (
        wordpiece_of_roberta,
        "RobertaForMaskedLM",
        ROBERTA,
        {"tokenizer_class": "BertTokenizer", "do_lower_case": False, "model_max_length": 512},
    ),
    "kogpt2": (
        words_by_bpe,
        "GPT2LMHeadModel",
        {"n_embd": 32, "n_layer": 2, "n_head": 2, "bos_token_id": 1, "eos_token_id": 1, "pad_token_id": 3},
        None,
    ),
    "ke_t5": (unigram, "T5ForConditionalGeneration", T5, {"tokenizer_class": "T5Tokenizer", **NAMES}),
    "pko_t5": (bytes_by_bpe, "T5ForConditionalGeneration", T5, {"tokenizer_class": "T5TokenizerFast", **NAMES}),
}


@pytest.fixture(scope="module")
def korean(tmp_path_factory):
    """Folder of a small random model of a kind, and the tokenizer that its tokenizer.json was written from."""
    made = {}

    def folder(kind: str) -> tuple[Path, tokenizers.Tokenizer]:
        if kind not in made:
            train, model, values, written = KINDS[kind]
            place, tokenizer = tmp_path_factory.mktemp(kind), train()
            torch.manual_seed(0)
            cls = getattr(transformers, model)
            cls(cls.config_class(vocab_size=tokenizer.get_vocab_size(), **values)).save_pretrained(place)
            tokenizer.save(str(place / "tokenizer.json"))
            if written:
                (place / "tokenizer_config.json").write_text(json.dumps(written))
            made[kind] = place, tokenizer
        return made[kind]

    return folder


def loaded(place: Path):
    task = Classification()
    task.labels = ["나쁨", "좋음"]
    return base_model.load(RunConfig(model=str(place)), task)[:2]


@pytest.mark.parametrize("kind", KINDS)
def test_hangul_comes_back_as_it_went_in(kind, korean):
    """Composed or not, syllables stay whole, words stay apart, and what the vocabulary lacks is not half a letter."""
    place, own = korean(kind)
    _, tokenizer = loaded(place)
    for text in TEXTS:
        for given in (text, unicodedata.normalize("NFD", text)) if not kind.startswith("klue") else (text,):
            ids = tokenizer(given)["input_ids"]
            assert [i for i in ids if i not in tokenizer.all_special_ids] == own.encode(
                given, add_special_tokens=False
            ).ids
            assert tokenizer.unk_token_id not in ids or kind.startswith("klue")
            back = tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=True)
            assert back.strip() == text
    decoded = tokenizer.decode(tokenizer(UNSEEN)["input_ids"], skip_special_tokens=True)
    assert unicodedata.normalize("NFC", decoded) == decoded and "\ufffd" not in decoded
    assert (decoded.strip() == UNSEEN) == (kind == "pko_t5"), "bytes know every syllable"


def test_the_special_tokens_of_a_kogpt2_are_its_own(korean):
    place, own = korean("kogpt2")
    _, tokenizer = loaded(place)
    assert (tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token) == ("</s>", "</s>", "<pad>")
    assert (tokenizer.unk_token, tokenizer.mask_token, len(tokenizer)) == ("<unk>", "<mask>", own.get_vocab_size())


def test_a_cased_bert_whose_configuration_does_not_say_so_reads_hangul(korean, tmp_path):
    """transformers' class takes it for an uncased one, and takes syllables apart into letters it does not know."""
    place, own = korean("klue_bert")
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        (tmp_path / name).write_bytes((place / name).read_bytes())
    assert "[UNK]" in transformers.AutoTokenizer.from_pretrained(tmp_path).tokenize(TEXTS[0])
    _, tokenizer = loaded(tmp_path)
    assert tokenizer(TEXTS[0])["input_ids"] == own.encode(TEXTS[0]).ids
    assert (tokenizer.cls_token, tokenizer.sep_token, tokenizer.pad_token) == ("[CLS]", "[SEP]", "[PAD]")


@pytest.mark.parametrize(
    ("kind", "written"),
    [
        ("kogpt2", {"eos_token": "<sys>", "pad_token": "<usr>"}),
        ("klue_bert", {"tokenizer_class": "BertTokenizer", "do_lower_case": True}),
    ],
)
def test_what_a_tokenizers_configuration_says_is_kept(kind, written, korean, tmp_path):
    """As stock classes read it, also where the vocabulary or the model's configuration would tell otherwise."""
    place, own = korean(kind)
    for name in ("config.json", "tokenizer.json"):
        (tmp_path / name).write_bytes((place / name).read_bytes())
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(written))
    config = transformers.AutoConfig.from_pretrained(tmp_path)
    tokenizer = load_tokenizer(str(tmp_path), None, config)
    if kind == "kogpt2":
        assert {name: getattr(tokenizer, name) for name in written} == written
        assert tokenizer(TEXTS[0])["input_ids"] == own.encode(TEXTS[0]).ids
    else:
        stock = transformers.AutoTokenizer.from_pretrained(tmp_path)
        assert tokenizer(TEXTS[0])["input_ids"] == stock(TEXTS[0])["input_ids"] != own.encode(TEXTS[0]).ids


def reviews() -> list[dict]:
    return [{"text": TEXTS[i % 6], "label": ["좋음", "나쁨"][i % 2]} for i in range(12)]


def questions() -> list[dict]:
    """Answers are parts of words: the particle after them is not theirs."""
    asked = [
        ("누가 훈민정음을 만들었나?", 0, "세종대왕"),
        ("한강은 어디로 흐르나?", 1, "서해"),
        ("언제 쉬나?", 4, "월요일"),
    ]
    rows = [
        {"question": q, "context": TEXTS[i], "answers": {"text": [a], "answer_start": [TEXTS[i].index(a)]}}
        for q, i, a in asked
    ]
    return rows * 4


def summaries() -> list[dict]:
    return [{"text": f"{TEXTS[i % 6]} {TEXTS[(i + 1) % 6]}", "summary": TEXTS[i % 6]} for i in range(12)]


def texts() -> list[dict]:
    return [{"text": " ".join(TEXTS[i % 6 :] + TEXTS[: i % 6])} for i in range(12)]


RUNS = [
    ("klue_bert", "sentiment_finetune", reviews, []),
    ("klue_bert", "qa_adapter", questions, []),
    ("klue_bert", "document_classification_features", reviews, []),
    ("klue_roberta", "sentiment_adapter", reviews, []),
    ("klue_roberta", "qa_finetune", questions, []),
    ("kogpt2", "sentiment_adapter", reviews, []),
    ("kogpt2", "qa_finetune", questions, []),
    ("kogpt2", "text_generation_finetune", texts, ["--language", "ko"]),
    ("ke_t5", "summarization_finetune", summaries, ["--max_target_length", "24"]),
    ("ke_t5", "qa_finetune", questions, []),
    ("pko_t5", "summarization_adapter", summaries, ["--max_target_length", "24"]),
    ("pko_t5", "sentiment_finetune", reviews, []),
]


@pytest.mark.parametrize(
    ("kind", "recipe", "rows", "flags"), RUNS, ids=[f"{kind}-{recipe}" for kind, recipe, *_ in RUNS]
)
def test_a_run_loads_back_by_stock_libraries(kind, recipe, rows, flags, korean, load_back_here, monkeypatch, tmp_path):
    place, own = korean(kind)
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows())
    for name in ("train", "validation"):
        (tmp_path / f"{name}.jsonl").write_text(lines, encoding="utf-8")
    files = ["--train_file", str(tmp_path / "train.jsonl"), "--validation_file", str(tmp_path / "validation.jsonl")]
    steps = [] if "features" in recipe else ["--max_steps", "2"]
    monkeypatch.setenv("TL_HUB_CACHE", str(tmp_path / "cache"))
    given = ["--model", str(place), "--output_dir", str(tmp_path / "run"), "--batch_size", "4", *files, *steps, *flags]
    monkeypatch.setattr(sys, "argv", [f"{recipe}.py", *given])
    runpy.run_path(str(ROOT / "recipes" / f"{recipe}.py"))["main"]()
    record = RunRecord.load(tmp_path / "run")
    assert record.verification["max_difference"] <= 1e-6
    stock = transformers.AutoTokenizer.from_pretrained(tmp_path / "run")
    for text in TEXTS:
        assert stock.encode(text, add_special_tokens=False) == own.encode(text, add_special_tokens=False).ids
    if recipe.startswith("qa"):
        answer = tl_hub.pipeline(tmp_path / "run")(question=rows()[0]["question"], context=TEXTS[0])["answer"]
        assert answer == answer.strip() and answer in TEXTS[0]
        assert "characters, as KorQuAD 1.0 counts" in card.render(record)
        anew = evaluation.remeasure(tmp_path / "run", validation_file=str(tmp_path / "validation.jsonl"))
        assert [figure["found"] for figure in anew["metrics"]] == pytest.approx([m.value for m in record.metrics])


def test_an_answer_within_a_word_is_the_fewest_tokens_that_cover_it(korean):
    for kind in KINDS:
        place, _ = korean(kind)
        model, tokenizer, _ = base_model.load(RunConfig(model=str(place)), QuestionAnswering())
        task = QuestionAnswering(max_length=160, doc_stride=32)
        task.adapt(tokenizer, model)
        rows = questions()[:3]
        columns = windows(
            tokenizer,
            [row["question"] for row in rows],
            [row["context"] for row in rows],
            [row["answers"] for row in rows],
            [0, 1, 2],
            **task.window_settings(tokenizer, model),
        )
        for i, row in enumerate(rows):
            places, wanted = columns["offsets"][i], row["answers"]
            left, right = places[columns["start_positions"][i]][0], places[columns["end_positions"][i]][1]
            begin = wanted["answer_start"][0]
            assert left <= begin and right >= begin + len(wanted["text"][0])
            inside = [
                span for span in places[columns["context_start"][i] : columns["context_end"][i]] if span[1] > begin
            ]
            assert places[columns["start_positions"][i]] == inside[0]


def test_a_klue_roberta_reads_pairs_without_segments(korean, tmp_path):
    """Its tokenizer is a BERT's, whose second text would ask for a segment that the model has not."""
    place, own = korean("klue_roberta")
    assert "token_type_ids" in transformers.AutoTokenizer.from_pretrained(place)(TEXTS[0], TEXTS[1])
    model, tokenizer, _ = base_model.load(RunConfig(model=str(place)), QuestionAnswering())
    tokenizer.save_pretrained(tmp_path)
    for given in (tokenizer, transformers.AutoTokenizer.from_pretrained(tmp_path)):
        inputs = given(TEXTS[0], TEXTS[1], return_tensors="pt")
        assert set(inputs) == {"input_ids", "attention_mask"}
        assert inputs["input_ids"][0].tolist() == own.encode(TEXTS[0], TEXTS[1]).ids
        assert torch.isfinite(model(**inputs).start_logits).all()


def test_a_family_that_is_none_of_ours_is_refused_by_name(tmp_path):
    config = transformers.ElectraConfig(
        vocab_size=50, hidden_size=16, num_hidden_layers=1, num_attention_heads=1, intermediate_size=16
    )
    transformers.ElectraModel(config).save_pretrained(tmp_path)
    with pytest.raises(UserError, match="is of type 'electra'; allowed are bert, gpt2, t5, xlnet, roberta"):
        base_model.load(RunConfig(model=str(tmp_path)), TextGeneration())
