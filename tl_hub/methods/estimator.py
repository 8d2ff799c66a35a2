"""Feature extraction as an estimator of scikit-learn."""

from typing import Any, Literal

import numpy as np
from datasets import Dataset
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.validation import check_is_fitted

from tl_hub import base_model, launch
from tl_hub.config import RunConfig
from tl_hub.data import Split
from tl_hub.errors import UserError
from tl_hub.methods.feature_extraction import FeatureExtraction, Pooling
from tl_hub.tasks.classification import Classification
from tl_hub.vectors import HeadKind, extract
from tl_hub.vectors.model import without_report


class FeatureClassifier(ClassifierMixin, BaseEstimator):
    """Feature extraction as an estimator of scikit-learn, also at the end of a `Pipeline` whose steps give texts.

    `FeatureClassifier("tiny:bert").fit(texts, labels).predict(texts)`; the fitted model is `model_`, a `FeatureModel`.

    Args:
        model: `tiny:bert` and the like (embedded), a Hub id, or a folder with safetensors weights.
        revision: branch, tag or commit of a model on the Hub.
        layer: number of a layer (0: embeddings), `sweep`, `last4`, `mix` or `auto`, as `--layer` of the recipes.
        pooling: what is taken of the tokens' vectors, such as `mean`; `sweep` chooses by cross-validation.
        head: `logistic`, `prototypes` (a handful of examples) or `mlp` (many).
        strength: penalty on the head's squared weights; None chooses it by cross-validation.
        cv: parts of the training rows in cross-validation.
        max_length: tokens in a window.
        doc_stride: tokens that neighbouring windows of a long text share.
        class_weights: `balanced` makes rare classes count more.
        batch_size: texts in a batch.
        bf16: read the training texts in bfloat16; None where the hardware computes in it.
        seed: of the split in cross-validation.
    """

    def __init__(
        self,
        model: str = "tiny:bert",
        *,
        revision: str | None = None,
        layer: str = "auto",
        pooling: Pooling = "sweep",
        head: HeadKind = "logistic",
        strength: float | None = None,
        cv: int = 5,
        max_length: int = 256,
        doc_stride: int = 64,
        class_weights: Literal["none", "balanced"] = "none",
        batch_size: int = 16,
        bf16: bool | None = None,
        seed: int = 0,
    ):
        self.model = model
        self.revision = revision
        self.layer = layer
        self.pooling = pooling
        self.head = head
        self.strength = strength
        self.cv = cv
        self.max_length = max_length
        self.doc_stride = doc_stride
        self.class_weights = class_weights
        self.batch_size = batch_size
        self.bf16 = bf16
        self.seed = seed

    def fit(self, X: Any, y: Any) -> "FeatureClassifier":
        """Read the texts `X` and fit a head that gives them the classes `y`, which `model_` names as text.

        Raises:
            UserError: a text is empty, or two classes are the same as text; or as a recipe does, for instance for
                fewer than two classes.
        """
        texts, y = list(X), np.asarray(y)
        if y.ndim != 1:
            raise UserError(f"y has {y.ndim} dimensions; give one class a text")
        if len(texts) != len(y):
            raise UserError(f"X has {len(texts):,} texts and y {len(y):,} classes; give one class a text")
        self.classes_, places = np.unique(y, return_inverse=True)
        names = [str(name) for name in self.classes_]
        if len(set(names)) < len(names):
            raise UserError(f"two of the classes {', '.join(names)} are the same as text; name them apart")
        run = RunConfig(model=self.model, revision=self.revision, batch_size=self.batch_size, seed=self.seed)
        task = Classification(max_length=self.max_length, doc_stride=self.doc_stride, class_weights=self.class_weights)
        method = FeatureExtraction(
            layer=self.layer, pooling=self.pooling, head=self.head, strength=self.strength, cv=self.cv
        )
        # Numbers of the classes: their names may be of any type, and must come back as they are.
        rows = task.check(Dataset.from_dict({"text": texts, "label": places.tolist()}))
        if len(rows) < len(texts):
            raise UserError("a text is empty; omit it and its class")
        task = task.learn({"train": rows})
        with without_report():
            model, tokenizer, base = base_model.load(run, task)
        base.check_frozen(model)
        encoded = task.encode(rows, tokenizer, model)
        split = Split(rows, encoded)
        layers, poolings = method.candidates(extract.encoder_of(model), len(rows))
        vectors = extract.extract(
            extract.encoder_of(model),
            encoded,
            task.collator(tokenizer, training=False),
            sorted({layer for group in layers for layer in group}),
            poolings,
            self.batch_size * self.max_length,
            launch.computes_bf16() if self.bf16 is None else self.bf16,
        )
        chosen = method.choose(model, vectors, split, task, self.seed)
        task.labels = names
        self.model_ = method.assemble(chosen, model, tokenizer, task, base, run)
        return self

    def predict(self, X: Any) -> np.ndarray:
        """The class of each text, as it was named in `fit`."""
        return self.classes_[self.predict_proba(X).argmax(1)]

    def predict_proba(self, X: Any) -> np.ndarray:
        """Probability of each class in the order of `classes_`, (texts, classes)."""
        check_is_fitted(self, "model_")
        return self.model_.predict_proba(list(X), batch_size=self.batch_size)
