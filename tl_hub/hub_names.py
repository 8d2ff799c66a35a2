"""Names that the Hub knows: of repositories, languages, tasks and libraries. Needs nothing but Python.

Of https://github.com/huggingface/huggingface.js at fe42e68017ffc76d09922ea8f9b38a6964345710 (packages/tasks/src) and
https://github.com/huggingface/hub-docs at 242f4a1eeb867daf4ac3f44026a5df4a68908a3d. Licenses are in `licenses`.
"""

import re

REPOSITORY = re.compile(r"(?!.*(--|\.\.))(?!.*\.git\Z)[A-Za-z0-9][\w.-]{0,95}(?<![.-])", re.ASCII)
"""The part of a repository's id behind its owner."""
ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9_][\w.-]*)?", re.ASCII)
"""Id of a model or data set, such as bert-base-uncased and alice/qa."""
LIBRARIES = {"FeatureModel": "tl-hub", "SentenceTransformer": "sentence-transformers"}
"""Classes that are not of transformers -> the Hub's name of their library (model-libraries.ts)."""

_LANGUAGES = frozenset(
    "aa ab ae af ak am an ar as av ay az ba be bg bh bi bm bn bo br bs ca ce ch co cr cs cu cv cy da de dv dz ee el en"
    " eo es et eu fa ff fi fj fo fr fy ga gd gl gn gu gv ha he hi ho hr ht hu hy hz ia id ie ig ii ik io is it iu ja jv"
    " ka kg ki kj kk kl km kn ko kr ks ku kv kw ky la lb lg li ln lo lt lu lv mg mh mi mk ml mn mr ms mt my na nb nd ne"
    " ng nl nn no nr nv ny oc oj om or os pa pi pl ps pt qu rm rn ro ru rw sa sc sd se sg sh si sk sl sm sn so sq sr ss"
    " st su sv sw ta te tg th ti tk tl tn to tr ts tt tw ty ug uk ur uz ve vi vo wa wo xh yi yo za zh zu".split()
)
"""ISO 639-1. Of the codes of three letters, thousands, the form is checked."""
PIPELINES = frozenset(
    "any-to-any audio-classification audio-text-to-text audio-to-audio automatic-speech-recognition depth-estimation"
    " document-question-answering feature-extraction fill-mask graph-ml image-classification image-feature-extraction"
    " image-segmentation image-text-to-image image-text-to-text image-text-to-video image-to-3d image-to-image"
    " image-to-text image-to-video keypoint-detection mask-generation multiple-choice object-detection other"
    " question-answering reinforcement-learning robotics sentence-similarity summarization table-question-answering"
    " table-to-text tabular-classification tabular-regression tabular-to-text text-classification text-generation"
    " text-ranking text-retrieval text-to-3d text-to-audio text-to-image text-to-speech text-to-video"
    " time-series-forecasting token-classification translation unconditional-image-generation video-classification"
    " video-text-to-text video-to-video visual-document-retrieval visual-question-answering voice-activity-detection"
    " zero-shot-classification zero-shot-image-classification zero-shot-object-detection".split()
)
"""Values of `pipeline_tag` (pipelines.ts)."""


def is_language(code: object) -> bool:
    """Whether the Hub takes a code as a `language`: ISO 639, `code` or `multilingual`."""
    if not isinstance(code, str):
        return False
    return code in _LANGUAGES or code in ("code", "multilingual") or bool(re.fullmatch("[a-z]{3}", code))
