"""A light head on a frozen pretrained model, published without it: head and tokenizer, and the name of the base."""

import json
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from huggingface_hub import ModelCard, ModelCardData, ModelHubMixin, hf_hub_download
from huggingface_hub.errors import EntryNotFoundError
from safetensors.torch import load_file, save_file
from scipy.special import expit, softmax
from transformers.modeling_outputs import SequenceClassifierOutput

from tl_hub import canary, run_folder, samples
from tl_hub.architectures import ARCHITECTURES, PAD_TO
from tl_hub.errors import UserError, first_line
from tl_hub.model_types import Tokenizer
from tl_hub.record import RunRecord
from tl_hub.tasks.classification.regression import PROBLEM
from tl_hub.tasks.classification.windows import row_means, windows
from tl_hub.tasks.extractive_summarization import in_document
from tl_hub.vectors.extract import batches, depth_of, encoder_of, pooled, weights_sha256
from tl_hub.vectors.heads import Head

_CHUNK = 1000
"""Texts whose token ids are in memory at once."""


class FeatureModel(torch.nn.Module, ModelHubMixin, library_name="tl-hub"):
    """Logits from a pooled vector of chosen layers of a pretrained model that stays as it is.

    `save_pretrained` and `push_to_hub` write the head, the tokenizer and `config.json`, which names the base model;
    `from_pretrained` fetches the base from where it is and makes sure that it is the same.

    Args:
        encoder: the base, from `extract.encoder_of`.
        config: `base` (`id`, `source`, `revision`, `path` of a local one, `sha256` of the weights), `layers`,
            `pooling`, `labels`, `multi_label`, `pairs` (of texts are read), `in_document` (sentences are read, see
            `tl_hub.tasks.extractive_summarization`), `max_length` and `doc_stride` of the windows; `threshold`, the
            probability from which a label of a multi-label model is given (0.5 if there is none); `regression`, where
            the one logit is a score as it is.
        tensors: `weight` and `bias` of the head, (classes, dimensions) and (classes,); of its hidden layer, if it has
            one, `hidden.weight` and `hidden.bias`; `mix`, (layers,), where the layers are summed up with these weights.
    """

    def __init__(self, encoder: Any, tokenizer: Tokenizer, config: dict[str, Any], tensors: dict[str, Any]):
        super().__init__()
        self.encoder = encoder.requires_grad_(False)
        self.tokenizer = tokenizer
        self.settings = config
        values = {name: torch.as_tensor(tensor, dtype=torch.float32).contiguous() for name, tensor in tensors.items()}
        self.head = _linear(values["weight"], values["bias"])
        self.hidden = _linear(values["hidden.weight"], values["hidden.bias"]) if "hidden.weight" in values else None
        self.mix = torch.nn.Parameter(values["mix"]) if "mix" in values else None
        # What runs a classifier of transformers reads these off its configuration.
        self.config = encoder.config
        self.config.id2label = dict(enumerate(config["labels"]))
        self.config.label2id = {label: i for i, label in enumerate(config["labels"])}
        self.config.problem_type = PROBLEM if config.get("regression") else None
        self.to(encoder.device)  # where the vectors were read

    @property
    def device(self) -> torch.device:
        return self.head.weight.device

    def forward(self, document: torch.Tensor | None = None, **inputs: torch.Tensor) -> SequenceClassifierOutput:
        """Logits of windows, or of sentences, of which `document` tells which are of one text, (batch,)."""
        vectors = self._pooled(inputs)
        if document is not None:
            vectors = torch.as_tensor(in_document(vectors.cpu().numpy(), document.cpu().numpy())).to(self.device)
        if self.hidden is not None:
            vectors = self.hidden(vectors).relu()
        return SequenceClassifierOutput(logits=self.head(vectors))

    def embed(self, texts: Sequence[str], pairs: Sequence[str] | None = None, batch_size: int = 32) -> np.ndarray:
        """The vector of each text: the mean over the windows of a long one, (texts, dimensions).

        Raises:
            UserError: a text is empty, `texts` is none of several, or pairs are wanted and not given, or the reverse.
        """
        return row_means(*self._windows(texts, pairs, batch_size))

    def predict_proba(
        self, texts: Sequence[str], pairs: Sequence[str] | None = None, batch_size: int = 32
    ) -> np.ndarray:
        """Probability of each label, (texts, labels).

        Raises:
            UserError: as `embed`; or the head is one for the sentences of a document, or of regression.
        """
        if self.settings.get("regression"):
            raise UserError("this head gives texts a score, not probabilities of classes; predict(...) gives it")
        logits = self._logits(texts, pairs, batch_size)
        return expit(logits) if self.settings["multi_label"] else softmax(logits, axis=1)

    def _logits(self, texts: Sequence[str], pairs: Sequence[str] | None, batch_size: int) -> np.ndarray:
        """The mean over the windows of each text, float64, (texts, labels)."""
        if self.settings["in_document"]:
            raise UserError("this head compares the sentences of a document; tl_hub.pipeline(...) summarizes with it")
        vectors, row = self._windows(texts, pairs, batch_size)
        own = {name: tensor.double().cpu().numpy() for name, tensor in self._tensors().items()}
        hidden = None if self.hidden is None else (own["hidden.weight"], own["hidden.bias"])
        return row_means(Head(own["weight"], own["bias"], hidden)(vectors), row)

    def predict(self, texts: Sequence[str], pairs: Sequence[str] | None = None, batch_size: int = 32) -> list[Any]:
        """The label of each text; of a multi-label model a list of those whose probability reaches the threshold.

        In regression, its score.
        """
        if self.settings.get("regression"):
            return self._logits(texts, pairs, batch_size)[:, 0].tolist()
        labels = self.settings["labels"]
        probabilities = self.predict_proba(texts, pairs, batch_size)
        if self.settings["multi_label"]:
            threshold = self.settings.get("threshold", 0.5)
            return [[labels[i] for i in np.flatnonzero(row >= threshold)] for row in probabilities]
        return [labels[i] for i in probabilities.argmax(1)]

    def folded(self) -> Any:
        """A model of transformers' own class with the same logits, with all weights. The family's entry says how.

        Raises:
            UserError: no class of transformers computes this.
        """
        if self.hidden is not None:
            raise UserError("--fold needs a linear head, which --head mlp is not")
        check_foldable(
            self.config.model_type, self.settings["layers"], self.settings["pooling"], depth_of(self.encoder)
        )
        weight, bias = self.head.weight.data, self.head.bias.data
        config = transformers.AutoConfig.for_model(**self.config.to_dict())
        config.num_hidden_layers = self.settings["layers"][0]
        several = self.settings["multi_label"]
        config.problem_type = self.config.problem_type or (
            "multi_label_classification" if several else "single_label_classification"
        )
        architecture = ARCHITECTURES[config.model_type]
        config.update(architecture.fold_config)
        model = transformers.AutoModelForSequenceClassification.from_config(config)
        own = self.encoder.state_dict()
        base = model.base_model
        base.load_state_dict({n: own[n] for n in base.state_dict() if n in own}, strict=False)
        with torch.no_grad():
            assert architecture.fold is not None  # check_foldable has asked
            architecture.fold(model, weight, bias, several)
        return model.eval()

    def _windows(
        self, texts: Sequence[str], pairs: Sequence[str] | None, batch_size: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Vectors of the windows of all texts, (windows, dimensions), and which text each is of, (windows,)."""
        if (pairs is not None) != self.settings["pairs"]:
            raise UserError(f"the model was trained on {'pairs of' if pairs is None else 'single'} texts")
        several = 1 if self.mix is not None else len(self.settings["layers"])
        dimensions = self.config.hidden_size * several
        if isinstance(texts, str):
            raise UserError("give a list of texts, not one text")
        if not all(text.strip() for text in [*texts, *(pairs or [])]):
            raise UserError("a text is empty")
        if not len(texts):
            return np.empty((0, dimensions), dtype=np.float32), np.empty(0, dtype=int)
        cut = self.settings["max_length"], self.settings["doc_stride"]
        segments = ARCHITECTURES[self.config.model_type].token_type_ids
        return read_windows(self.tokenizer, texts, pairs, *cut, segments, self._pooled, dimensions, batch_size)

    def _pooled(self, inputs: Any) -> torch.Tensor:
        inputs = {name: tensor.to(self.device) for name, tensor in inputs.items()}
        vectors = pooled(self.encoder, inputs, self.settings["layers"], [self.settings["pooling"]])
        if self.mix is not None:
            return torch.einsum("l,lbd->bd", self.mix.detach(), vectors[:, 0])
        return torch.cat(list(vectors[:, 0]), dim=1)

    def _tensors(self) -> dict[str, torch.Tensor]:
        return {
            name.removeprefix("head."): parameter.detach()
            for name, parameter in self.named_parameters()
            if not name.startswith("encoder.")
        }

    def _save_pretrained(self, save_directory: Path) -> None:
        save_file(self._tensors(), save_directory / run_folder.HEAD)
        self.tokenizer.save_pretrained(save_directory)
        text = json.dumps(self.settings, indent=2, ensure_ascii=False)
        (save_directory / run_folder.CONFIG).write_text(text + "\n", encoding="utf-8")

    def generate_model_card(self, *_: Any, **__: Any) -> ModelCard:
        """The card of a head that is saved by itself; a run's card is `tl_hub.card`'s."""
        base, settings = self.settings["base"], self.settings
        head = ModelCardData(
            library_name="tl-hub",
            pipeline_tag="summarization" if settings["in_document"] else "text-classification",
            base_model=base["id"] if base["source"] == "hub" else None,
            tags=["tl-hub", self.config.model_type],
        )
        texts = "sentences of a text" if settings["in_document"] else "pairs of texts" if settings["pairs"] else "texts"
        kind, does = "classifier", f"assigns {texts} to {len(settings['labels'])} classes"
        if settings.get("regression"):
            kind, does = "regression", f"gives {texts} a score"
        return ModelCard(
            f"---\n{head.to_yaml()}\n---\n\n# A {kind} on frozen vectors\n\n"
            f"It {does} by the vectors of `{base['id']}` (layers "
            f"{', '.join(map(str, settings['layers']))}, {settings['pooling']} pooling), which stays as it is. The "
            "files here hold the head; the base is fetched from where it is.\n\n"
            "```python\nimport tl_hub\n\n"
            'model = tl_hub.FeatureModel.from_pretrained("owner/name")  # this repository\n'
            'model.predict(["a text"])\n```\n'
        )

    def push_to_hub(self, repo_id: str, **options: Any) -> str:
        """Publish as `huggingface_hub.ModelHubMixin.push_to_hub` does.

        Raises:
            UserError: the base is a local folder, which nobody else has.
        """
        if self.settings["base"]["source"] == "local":
            raise UserError(
                f"the base {self.settings['base']['id']} is a local folder, without which nobody can load the head; "
                "publish the base first, and train on its Hub id"
            )
        return super().push_to_hub(repo_id, **options)

    @classmethod
    def _from_pretrained(  # type: ignore[override]
        cls,
        *,
        model_id: str,
        revision: str | None,
        cache_dir: str | Path | None,
        force_download: bool,
        local_files_only: bool,
        token: str | bool | None,
        config: dict[str, Any],
        base: str | Path | None = None,
    ) -> "FeatureModel":
        """`base`: folder of the base model, where it is not on the Hub, or not where it was in training.

        Raises:
            UserError: not from a FeatureModel, or its base is out of reach or another one.
        """
        if not isinstance(config, dict) or not {"base", "layers", "pooling"} <= set(config):
            raise UserError(f"{model_id} holds no FeatureModel; its config.json names no base, layers and pooling")
        fetch: dict[str, Any] = {"cache_dir": cache_dir, "local_files_only": local_files_only, "token": token}
        own = {**fetch, "revision": revision, "force_download": force_download}
        name = run_folder.HEAD
        file = Path(model_id) / name if Path(model_id).is_dir() else hf_hub_download(model_id, name, **own)
        tokenizer = transformers.AutoTokenizer.from_pretrained(model_id, trust_remote_code=False, **own)
        try:
            line = canary.drift(_record(model_id, own), tokenizer)
        except UserError as error:  # the head needs nothing of it
            line = f"whether the tokenizer reads texts as in training is not known: {error}"
        if line:
            warnings.warn(line, stacklevel=2)
        encoder = _base(model_id, config["base"], base, fetch)
        return cls(encoder, tokenizer, config, load_file(file)).eval()


def _record(model_id: str, own: dict[str, Any]) -> RunRecord | None:
    """The record of the run that a head is of; None of one that was saved by itself."""
    if Path(model_id).is_dir():
        return RunRecord.load(model_id) if (Path(model_id) / run_folder.RECORD).is_file() else None
    try:
        return RunRecord.load(Path(hf_hub_download(model_id, run_folder.RECORD, **own)).parent)
    except EntryNotFoundError:
        return None


def read_windows(
    tokenizer: Tokenizer,
    texts: Sequence[str],
    pairs: Sequence[str] | None,
    max_length: int,
    doc_stride: int,
    segments: bool,
    pool: Callable[[Any], torch.Tensor],
    dimensions: int,
    batch_size: int,
) -> tuple[np.ndarray, np.ndarray]:
    """What `pool` makes of the windows of all texts, long ones first.

    Args:
        segments: the batches have `token_type_ids`.
        pool: from a batch as `pooled` takes it, on the CPU, to (batch, dimensions).

    Returns:
        float32 vectors, (windows, dimensions), and which text each is of, (windows,), ascending.
    """
    found, rows = [], []
    for start in range(0, len(texts), _CHUNK):
        part = slice(start, start + _CHUNK)
        second = None if pairs is None else list(pairs[part])
        columns = windows(tokenizer, list(texts[part]), second, max_length, doc_stride, segments)
        names: list[str] = [name for name in ("input_ids", "token_type_ids") if name in columns]
        vectors = np.empty((len(columns["row"]), dimensions), dtype=np.float32)
        for places in batches(columns["length"], batch_size * max_length):
            batch = tokenizer.pad(
                {name: [columns[name][place] for place in places] for name in names},
                pad_to_multiple_of=PAD_TO,
                return_tensors="pt",
            )
            vectors[places] = pool(batch).cpu().numpy()
        found.append(vectors)
        rows.append(start + np.asarray(columns["row"]))
    return np.concatenate(found), np.concatenate(rows)


def _linear(weight: torch.Tensor, bias: torch.Tensor) -> torch.nn.Linear:
    layer = torch.nn.Linear(weight.size(1), weight.size(0))
    layer.weight.data, layer.bias.data = weight, bias
    return layer


@contextmanager
def without_report() -> Iterator[None]:
    """Load a base without transformers' table of the heads that are left away or made anew, as is meant."""
    verbosity = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity_error()
    try:
        yield
    finally:
        transformers.logging.set_verbosity(verbosity)


def check_foldable(model_type: str, layers: Sequence[int], pooling: str, depth: int) -> None:
    """Whether a class of transformers has a head that reads these vectors.

    Raises:
        UserError: none has; says what the family's class reads.
    """
    architecture = ARCHITECTURES[model_type]
    if architecture.fold is None:
        raise UserError(f"--fold is not for {model_type}, whose classifier of transformers reads its decoder")
    reads, top = architecture.summary, architecture.final_norm is not None  # which stands before the head
    if pooling != reads or len(layers) > 1 or layers[0] == 0 or (top and layers[0] != depth):
        layer = f"--layer {depth}" if top else "one --layer from 1 on"
        raise UserError(f"--fold: transformers' classifier for {model_type} reads --pooling {reads} and {layer}")


def _base(model_id: str, base: dict[str, Any], folder: str | Path | None, fetch: dict[str, Any]) -> Any:
    """The encoder that a head was trained on.

    Raises:
        UserError: out of reach, or another one.
    """
    place: Any = folder or base["id"]
    if folder is None and base["source"] == "embedded":
        place = samples.checkpoint(base["id"].removeprefix("tiny:"))
    elif folder is None and base["source"] == "local":
        place = base.get("path", "")
        if not Path(place).is_dir():
            raise UserError(
                f"{model_id} needs its base {base['id']}, a local folder; give it: from_pretrained(..., base=)"
            )
    options = {**fetch, "revision": base["revision"]} if folder is None and base["source"] == "hub" else {}
    try:
        with without_report():  # a weight that is missing and read changes the hash below
            model = transformers.AutoModel.from_pretrained(
                place, dtype=torch.float32, use_safetensors=True, trust_remote_code=False, **options
            )
    except (OSError, ValueError) as error:
        raise UserError(f"{model_id}: its base {base['id']} cannot be loaded ({first_line(error)})") from error
    encoder = encoder_of(model)
    found = weights_sha256(encoder)
    if found != base["sha256"]:
        raise UserError(
            f"{model_id} was trained on {base['id']} with weights {base['sha256'][:12]}, but those here are "
            f"{found[:12]}; its head is of no use with them"
        )
    return encoder
