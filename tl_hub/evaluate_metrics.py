"""The metrics of `tl_hub.metrics` in the form of the `evaluate` library."""

from typing import Any

import datasets
import evaluate

from tl_hub.metrics import rouge_scores, squad_scores, translation_scores


class SquadMetric(evaluate.Metric):
    """Exact match and F1 of extractive question answering (SQuAD 1.1 and 2.0), as an `evaluate.Metric`.

    `compute(predictions=["in Paris"], references=[["Paris"]])`; an unanswerable question has the references `[]`. A
    single reference may be a text instead of a list. Of Korean answers it counts characters as KorQuAD does, of Chinese
    ones as MLQA does (`tl_hub.metrics.answer_rule`).
    """

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description="Exact match and F1 of answers, the best over their references, in per cent.",
            citation="https://arxiv.org/abs/1806.03822",
            features=_one_or_several(),
        )

    def _compute(self, predictions: list[str], references: list[Any]) -> dict[str, Any]:
        return {name: float(scores.mean()) for name, scores in squad_scores(predictions, _several(references)).items()}


class RougeMetric(evaluate.Metric):
    """ROUGE of summaries, as an `evaluate.Metric`: `compute(predictions=["A cat sat."], references=["A cat."])`.

    A reference may be a list of several.
    """

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description="F of ROUGE-1, -2, -L and -Lsum, the best over the references, in per cent.",
            citation="https://aclanthology.org/W04-1013",
            features=_one_or_several(),
        )

    def _compute(self, predictions: list[str], references: list[Any]) -> dict[str, Any]:
        return {name: float(scores.mean()) for name, scores in rouge_scores(predictions, _several(references)).items()}


class TranslationMetric(evaluate.Metric):
    """chrF and BLEU, as an `evaluate.Metric`: `compute(predictions=["Guten Tag."], references=["Guten Tag!"])`.

    A reference may be a list of several. With each figure comes sacreBLEU's signature, as `chrf_signature` and
    `bleu_signature`.
    """

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description="sacreBLEU's chrF and BLEU (tokenizer 13a, or the one given as tokenize=), from 0 to 100.",
            citation="https://aclanthology.org/W18-6319",
            features=_one_or_several(),
        )

    def _compute(self, predictions: list[str], references: list[Any], tokenize: str = "13a") -> dict[str, Any]:
        scores = translation_scores(predictions, _several(references), tokenize, resamples=0)
        signatures = {f"{name}_signature": score["signature"] for name, score in scores.items()}
        return {name: score["value"] for name, score in scores.items()} | signatures


def _one_or_several() -> list[datasets.Features]:
    """What the metrics take: a text as prediction, and a text or a list of texts as reference."""
    text = datasets.Value("string")
    kinds: list[Any] = [datasets.List(text), text]
    return [datasets.Features({"predictions": text, "references": kind}) for kind in kinds]


def _several(references: list[Any]) -> list[list[str]]:
    return [[texts] if isinstance(texts, str) else texts for texts in references]
