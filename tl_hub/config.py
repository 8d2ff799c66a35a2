"""Settings that every recipe shares. A field is a command-line flag of the same name."""

import math
import re
from dataclasses import dataclass, field, fields
from typing import Any, Literal

from tl_hub.errors import UserError


def flag(default: Any, help: str) -> Any:
    """A dataclass field that is also a flag: its default, and what `--help` says of it."""
    return field(default=default, metadata={"help": help})


@dataclass(kw_only=True)
class RunConfig:
    """What is trained on what, for how long, and where the result goes.

    Raises:
        UserError: a number is out of its range, or two settings exclude each other.
    """

    output_dir: str = flag("runs/run", "the run folder: weights, card, log and record are written here")
    model: str = flag("tiny:bert", "tiny:bert (embedded), a Hub id, or a folder with config and safetensors weights")
    revision: str | None = flag(None, "branch, tag or commit of the model on the Hub")
    dataset: str | None = flag(None, "sample:<task> (embedded), a Hub data set id, or a folder of data files")
    dataset_config: str | None = flag(None, "configuration of the Hub data set, where it has several")
    dataset_revision: str | None = flag(None, "branch, tag or commit of the data set on the Hub")
    train_file: str | None = flag(None, "your own rows: .json, .jsonl, .jsonl.gz, .csv or .parquet")
    validation_file: str | None = flag(None, "rows that choose the best epoch; a tenth of the training rows if none")
    test_file: str | None = flag(None, "rows that the reported numbers come from; the validation rows if none")
    train_rows: int | None = flag(None, "use only the first N training rows")
    validation_rows: int | None = flag(None, "use only the first N validation rows")
    test_rows: int | None = flag(None, "use only the first N test rows")
    epochs: int = flag(3, "passes over the training rows")
    max_steps: int | None = flag(None, "stop after N optimizer steps, whatever the epochs")
    batch_size: int = flag(16, "rows in a batch, on each process")
    accumulation: int = flag(1, "batches whose gradients are added up before an optimizer step")
    learning_rate: float = flag(5e-5, "peak learning rate of AdamW")
    warmup: float = flag(0.1, "share of the steps in which the rate rises from 0 to its peak")
    schedule: Literal["linear", "cosine", "constant"] = flag("linear", "how the rate falls after the warm-up")
    weight_decay: float = flag(0.01, "AdamW's decay, on weight matrices only")
    max_grad_norm: float = flag(1.0, "gradients are clipped to this norm")
    precision: Literal["auto", "fp32", "bf16"] = flag("auto", "auto is bf16 where the hardware computes in it")
    seed: int = flag(0, "of initialisation, order of rows and dropout")
    checkpoint_minutes: float = flag(10, "the training state is saved this often, and after each epoch")
    resume: bool | str = flag(False, "go on with the interrupted run in output_dir; hub:owner/name: with one pushed")
    overwrite: bool = flag(False, "replace another run in output_dir")
    license: str | None = flag(None, "license of the result, as the Hub names it; the base model's if not given")
    language: str | None = flag(None, "language of the texts, an ISO 639 code; several with commas, such as en,ko")
    push_to: str | None = flag(None, "owner/name on the Hub to publish the result as, private unless --public")
    push_base: str | None = flag(None, "owner/name to publish the base as, where it is only here")
    push_every: int | None = flag(None, "also push the best weights and the training state, after every N epochs")
    push_revision: str | None = flag(None, "branch to publish to, made if it is not there; main if none")
    create_pr: bool = flag(False, "publish as a pull request, to a repository of others too")
    tag: str | None = flag(None, "name for the published commit")
    collection: str | None = flag(None, "slug of a collection for the result, or title of one's own, made if not there")
    public: bool = flag(False, "a repository that --push_to makes is visible to everybody")
    dry_run: bool = flag(False, "say at the end what --push_to would send, and send nothing")
    check: bool = flag(False, "check data, model, time and memory on the longest batch, then stop before training")
    verbose: bool = flag(False, "let the libraries' own messages through")

    def __post_init__(self) -> None:
        for setting in fields(self):
            if getattr(self, setting.name) == "":
                raise UserError(f"--{setting.name} is empty; give a value or leave it away")
        counts = ("epochs", "batch_size", "accumulation", "max_steps", "train_rows", "validation_rows", "test_rows")
        for name in (*counts, "push_every"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UserError(f"--{name} is {value}; it must be at least 1")
        for name in ("learning_rate", "max_grad_norm", "checkpoint_minutes"):
            if not 0 < getattr(self, name) < math.inf:
                raise UserError(f"--{name} is {getattr(self, name)}; it must be a number greater than 0")
        if not 0 <= self.warmup < 1:
            raise UserError(f"--warmup is {self.warmup}; it is a share of the steps, from 0 to below 1")
        if not 0 <= self.weight_decay < math.inf:
            raise UserError(f"--weight_decay is {self.weight_decay}; it must be a number from 0")
        if not 0 <= self.seed < 2**32:
            raise UserError(f"--seed is {self.seed}; it must be a number from 0 to {2**32 - 1}")
        for code in (self.language or "en").split(","):
            if not re.fullmatch(r"[a-z]{2,3}(-[A-Za-z0-9]+)?|multilingual|code", code):
                raise UserError(f"--language {self.language}: {code!r} is not an ISO 639 code such as en, de or kor")
        if self.resume and self.overwrite:
            raise UserError("--resume and --overwrite exclude each other; give one of them")
        if isinstance(self.resume, str) and not self.resume.startswith("hub:"):
            raise UserError(f"--resume {self.resume}: give --resume alone, or --resume hub:owner/name")
        for name in ("push_base", "push_every", "push_revision", "create_pr", "tag", "collection", "public", "dry_run"):
            if getattr(self, name) and not self.push_to:
                raise UserError(f"--{name} needs --push_to owner/name")
        if self.push_base and self.push_base == self.push_to:
            raise UserError(f"--push_base and --push_to are both {self.push_to}; a base needs a repository of its own")
        for name in ("push_revision", "push_every"):
            if self.create_pr and getattr(self, name):
                raise UserError(
                    f"--create_pr and --{name} exclude each other; a pull request is made once, against main"
                )
        for name in ("public", "dry_run"):
            if self.push_every and getattr(self, name):
                raise UserError(f"--push_every and --{name} exclude each other; a training state is private")
        if self.dataset and self.train_file:
            raise UserError("--dataset and --train_file exclude each other; give one of them")
        if not self.train_file:
            for name in ("validation_file", "test_file"):
                if getattr(self, name):
                    raise UserError(f"--{name} needs --train_file; a --dataset brings its own splits")
