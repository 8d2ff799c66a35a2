"""Settings that every recipe shares. A field is a command-line flag of the same name."""

import math
import re
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from tl_hub import samples
from tl_hub.architectures import ARCHITECTURES
from tl_hub.errors import UserError


def flag(
    default: Any,
    help: str,
    *,
    shown: str | None = None,
    recorded: bool = True,
    measured_with: bool = False,
    reads: bool = False,
    needs: str | None = None,
    follows: str | None = None,
) -> Any:
    """A dataclass field that is also a flag.

    Args:
        default: value where the flag is not given.
        help: what `--help` says of it.
        shown: what stands for a default of None in `--help`.
        recorded: whether the run record, which is published, holds the value. Paths and names of one's own are not.
        measured_with: whether figures that are measured anew depend on it.
        reads: whether it says where rows are or how they are written, which may differ for rows measured later.
        needs: name of the field without which this one has no effect.
        follows: name of the field of which this one is at most a quarter where only that one is given by hand.
    """
    about = {"help": help, "shown": shown, "recorded": recorded, "measured_with": measured_with, "reads": reads}
    return field(default=default, metadata=about | {"needs": needs, "follows": follows})


@dataclass(kw_only=True)
class RunConfig:
    """What is trained on what, for how long, and where the result goes.

    Raises:
        UserError: a number is out of its range, or two settings exclude each other.
    """

    # No flags: names of the settings that a flag or preset gave, and where others were taken from.
    given = frozenset[str]()
    settings_from = ""

    output_dir: str = flag(
        "runs/run", "the run folder: weights, model card, log and record are written here", recorded=False
    )
    model: str = flag(
        "tiny:bert",
        "tiny:bert (embedded), a Hub id, or a folder with a configuration and safetensors weights",
        recorded=False,
    )
    revision: str | None = flag(None, "branch, tag or commit of the model on the Hub", shown="main")
    dataset: str | None = flag(
        None,
        "sample:<task> (embedded), a Hub data set id, or a folder of data files",
        shown="the task's embedded sample",
        recorded=False,
        reads=True,
    )
    dataset_config: str | None = flag(
        None, "configuration of the Hub data set, if it has several", measured_with=True, reads=True
    )
    dataset_revision: str | None = flag(
        None, "branch, tag or commit of the data set on the Hub", shown="main", reads=True
    )
    train_file: str | None = flag(
        None, "your own training rows: .json, .jsonl, .jsonl.gz, .csv, .tsv or .parquet", recorded=False, reads=True
    )
    validation_file: str | None = flag(
        None,
        "rows used to choose the best epoch",
        shown="a tenth of the training rows, the same for every seed",
        recorded=False,
        reads=True,
    )
    test_file: str | None = flag(
        None, "rows the reported figures are measured on", shown="the validation rows", recorded=False, reads=True
    )
    encoding: str | None = flag(
        None, "encoding of your files, such as cp1252, utf-16 or cp949", shown="utf-8", reads=True
    )
    delimiter: str | None = flag(
        None,
        "what separates the cells of .csv and .tsv files: one character, such as ';' or '|', or tab",
        shown="a tab in .tsv; in .csv what the first line has of , ; and tab",
        reads=True,
    )
    train_rows: int | None = flag(
        None,
        "use only the first N training rows; where validation rows are held out, a tenth as many more for them",
        shown="all",
        measured_with=True,
    )
    validation_rows: int | None = flag(None, "use only the first N validation rows", shown="all", measured_with=True)
    test_rows: int | None = flag(None, "use only the first N test rows", shown="all", measured_with=True)
    epochs: int = flag(3, "passes over the training rows")
    max_steps: int | None = flag(None, "stop after N optimizer steps at the latest", shown="no limit")
    batch_size: int = flag(16, "rows in a batch, on each process", measured_with=True)
    accumulation: int = flag(1, "batches whose gradients are averaged before an optimizer step")
    learning_rate: float = flag(5e-5, "peak learning rate of AdamW")
    warmup: float = flag(0.1, "share of the steps during which the learning rate rises from 0 to its peak")
    schedule: Literal["linear", "cosine", "constant"] = flag("linear", "how the learning rate falls after the warm-up")
    weight_decay: float = flag(0.01, "AdamW's weight decay, applied to weight matrices only")
    max_grad_norm: float = flag(1.0, "gradients are clipped to this norm")
    precision: Literal["auto", "fp32", "bf16"] = flag("auto", "auto: bf16 if the hardware computes in it, or else fp32")
    seed: int = flag(0, "seed for initialisation, row order and dropout", measured_with=True)
    examples: bool = flag(
        True,
        "show some measured rows, verbatim, on the card and in run.json; both are published by --push_to",
        recorded=False,
    )
    example_rows: str | None = flag(
        None,
        "rows of the measured split to show, by number from 0 as in predictions.jsonl, such as 3,17",
        shown="8 drawn at random",
        recorded=False,
    )
    checkpoint_minutes: float = flag(10, "save the training state this often, besides after each epoch")
    resume: bool | str = flag(
        False,
        "continue the interrupted run in output_dir; hub:owner/name continues one pushed with --push_every",
        recorded=False,
    )
    overwrite: bool = flag(False, "replace the run in output_dir", recorded=False)
    license: str | None = flag(None, "license of the result, as the Hub names it", shown="the base model's")
    language: str | None = flag(
        None, "language of the texts as an ISO 639 code; several separated by commas, such as en,ko"
    )
    push_to: str | None = flag(
        None, "owner/name on the Hub to publish the result as; private unless --public", recorded=False
    )
    push_base: str | None = flag(
        None,
        "owner/name to publish the base model as, if it is a local or embedded one",
        recorded=False,
        needs="push_to",
    )
    push_every: int | None = flag(
        None,
        "also push the best weights and the training state after every N epochs",
        shown="at the end only",
        recorded=False,
        needs="push_to",
    )
    push_revision: str | None = flag(
        None, "branch to publish to, created if missing", shown="main", recorded=False, needs="push_to"
    )
    create_pr: bool = flag(
        False, "publish as a pull request, which also works for repositories of others", recorded=False, needs="push_to"
    )
    tag: str | None = flag(None, "tag for the published commit", recorded=False, needs="push_to")
    collection: str | None = flag(
        None,
        "slug of a collection, or a title (created under the repository's owner if missing)",
        recorded=False,
        needs="push_to",
    )
    public: bool = flag(
        False, "make a repository that --push_to creates visible to everybody", recorded=False, needs="push_to"
    )
    dry_run: bool = flag(
        False, "show at the end what --push_to would send, and send nothing", recorded=False, needs="push_to"
    )
    check: bool = flag(
        False, "check data, model, time and memory on the longest batch, then stop before training", recorded=False
    )
    verbose: bool = flag(False, "show the libraries' own messages", recorded=False)

    def __post_init__(self) -> None:
        for setting in fields(self):
            if getattr(self, setting.name) == "":
                raise UserError(f"--{setting.name} is empty; give a value or omit it")
        self._check_paths()
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
            if not re.fullmatch(r"[a-z]{2,3}(-[A-Za-z0-9]+)*|multilingual|code", code):
                raise UserError(
                    f"--language {self.language}: {code!r} is not an ISO 639 code such as en, de or kor, or one with a "
                    "region such as pt-BR"
                )
        if self.delimiter in ("\t", "\\t"):
            self.delimiter = "tab"  # a card shows it
        if self.delimiter not in (None, "tab") and (len(self.delimiter) > 1 or self.delimiter in '"\r\n'):
            raise UserError(f"--delimiter {self.delimiter!r} is not one character that separates cells, or tab")
        try:
            "".encode(self.encoding or "utf-8")
        except LookupError as error:
            raise UserError(
                f"--encoding {self.encoding} is unknown; give one such as cp1252, utf-16 or cp949"
            ) from error
        if self.example_rows and not re.fullmatch(r"\d+(,\d+)*", self.example_rows, re.ASCII):
            raise UserError(
                f"--example_rows is {self.example_rows}; give row numbers separated by commas, such as 3,17"
            )
        if self.example_rows and not self.examples:
            raise UserError("--example_rows and --no_examples exclude each other; give one of them")
        if self.resume and self.overwrite:
            raise UserError("--resume and --overwrite exclude each other; give one of them")
        if isinstance(self.resume, str) and not self.resume.startswith("hub:"):
            raise UserError(f"--resume {self.resume}: give --resume alone, or --resume hub:owner/name")
        for setting in fields(self):
            needed = setting.metadata["needs"]
            if needed and getattr(self, setting.name) and not getattr(self, needed):
                raise UserError(f"--{setting.name} needs --{needed}")
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
        for name in ("train_file", "validation_file", "test_file"):
            if self.dataset and getattr(self, name):
                raise UserError(f"--dataset and --{name} exclude each other; a data set brings its own splits")

    def _check_paths(self) -> None:
        """Values that are something else than the flag takes: a family, a file for a folder, a folder for a file."""
        family = ARCHITECTURES.get(self.model)
        checkpoint = family is not None and family.example.endswith(f"/{self.model}")  # gpt2 is the name of one too
        if family is not None and not checkpoint and not Path(self.model).is_dir():
            embedded = f"tiny:{self.model} (embedded), " if self.model in samples.checkpoints() else ""
            raise UserError(
                f"--model {self.model} is a family, not a checkpoint; give {embedded}a Hub id such as "
                f"{family.example}, or a folder"
            )
        if self.dataset and Path(self.dataset).is_file():
            raise UserError(f"--dataset {self.dataset} is a file; give it as --train_file {self.dataset}")
        for name in ("train_file", "validation_file", "test_file"):
            path = getattr(self, name)
            if path and Path(path).is_dir():
                raise UserError(
                    f"--{name} {path} is a folder; give a file, or --dataset {path} for a folder with files named "
                    "train, validation and test"
                )
        if Path(self.output_dir).is_file():
            raise UserError(f"--output_dir {self.output_dir} is a file; give a folder")
