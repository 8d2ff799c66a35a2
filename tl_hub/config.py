"""Settings that every recipe shares. A field is a command-line flag of the same name."""

import itertools
import math
import re
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, get_args, get_type_hints

from tl_hub import samples
from tl_hub.architectures import ARCHITECTURES
from tl_hub.domain_sources import sources
from tl_hub.errors import UserError
from tl_hub.hub_names import is_language

TRACKERS = ("tensorboard", "trackio", "wandb", "mlflow")
"""What `report_to` may name, each after its package."""


PATIENCE, FEW_ROWS = 5, 1000
"""Epochs without a better figure that end training of fewer rows than so many. The embedded sentiment run of 14 epochs,
whose best is the twelfth, has up to three in a row that are no better."""


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
    group: str | None = None,
) -> Any:
    """A dataclass field that is also a flag.

    Args:
        default: value where the flag is not given.
        help: what `--help` says of it.
        shown: what stands for a default of None in `--help`.
        recorded: whether the run record, which is published, holds the value. The user's own paths and names are not.
        measured_with: whether figures that are measured anew depend on it.
        reads: whether it says where rows are or how they are written, which may differ for rows measured later.
        needs: name of the field without which this one has no effect.
        follows: name of the field of which this one is at most a quarter where only that one is given by hand.
        group: heading in `--help` of this flag and of those after it, up to the next one with a heading.
    """
    about = {"help": help, "shown": shown, "recorded": recorded, "measured_with": measured_with, "reads": reads}
    return field(default=default, metadata=about | {"needs": needs, "follows": follows, "group": group})


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
        "runs/run",
        "the run folder: weights, model card, log and record are written here",
        recorded=False,
        group="run folder and model",
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
        group="data",
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
    eval_on: str | None = flag(
        None,
        "rows of other domains to measure the trained model on too: a file, a folder with a test file, a Hub data set "
        "id or sample:NAME; several separated by commas, each with a name before it if it is given one, as in "
        "tweets=other.csv",
        shown="the run's own rows only",
        recorded=False,
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
    test_rows: int | None = flag(
        None, "use only the first N test rows, also of --eval_on", shown="all", measured_with=True
    )
    train_draw: int | None = flag(
        None,
        "draw the --train_rows at random by this number, the classes in proportion",
        shown="the first N",
        measured_with=True,
    )
    streaming: int | None = flag(
        None,
        "read the training rows as a stream, for data larger than the disk: each epoch trains on the next N rows, as "
        "the model reads them, and only those are kept",
        shown="all rows are read first, and trained on in each epoch",
        measured_with=True,
    )
    epochs: int = flag(3, "passes over the training rows", group="training")
    max_steps: int | None = flag(None, "stop after N optimizer steps at the latest", shown="no limit")
    patience: int | None = flag(
        None,
        "stop when the figure that chooses the best epoch has not improved for N epochs; 0: never",
        shown=f"{PATIENCE} after the warm-up, of fewer than {FEW_ROWS:,} training rows; else all epochs",
    )
    average: float | None = flag(
        None,
        "also average the weights, over about the last N epochs, and keep the average if it is no worse than the best "
        "epoch on the validation rows",
        shown="the best epoch",
    )
    batch_size: int = flag(16, "rows in a batch, on each process", measured_with=True)
    accumulation: int = flag(1, "batches that make one optimizer step")
    learning_rate: float = flag(5e-5, "peak learning rate of AdamW")
    warmup: float = flag(0.1, "share of the steps during which the learning rate rises from 0 to its peak")
    schedule: Literal["linear", "cosine", "constant"] = flag("linear", "how the learning rate falls after the warm-up")
    weight_decay: float = flag(0.01, "AdamW's weight decay, applied to weight matrices only")
    max_grad_norm: float = flag(1.0, "gradients are clipped to this norm")
    precision: Literal["auto", "fp32", "bf16"] = flag("auto", "auto: bf16 if the hardware computes in it, or else fp32")
    threads: int | None = flag(
        None, "CPU threads of each process", shown="the cores that no other program keeps busy at the start"
    )
    activation_checkpointing: bool = flag(
        False, "compute activations again in the backward pass: less memory, a third more time, the same result"
    )
    recompute_frozen: bool = flag(
        False, "let frozen lower layers read each row in every epoch, not once with what they give kept on the disk"
    )
    seed: int = flag(0, "seed for initialisation, row order and dropout", measured_with=True)
    init_seed: int | None = flag(None, "another seed for initialisation: new heads and adapters", shown="--seed")
    examples: bool = flag(
        True,
        "show some measured rows, verbatim, on the card and in run.json; both are published by --push_to",
        recorded=False,
        group="card",
    )
    example_rows: str | None = flag(
        None,
        "rows of the measured split to show, by number from 0 as in predictions.jsonl, such as 3,17",
        shown="8 random ones",
        recorded=False,
    )
    license: str | None = flag(None, "license of the result, as the Hub names it", shown="the base model's")
    license_name: str | None = flag(
        None, "id of a license that the Hub does not list, such as my-license-1.0; with --license other", recorded=False
    )
    license_link: str | None = flag(
        None, "URL of its text, or a file that holds it, which is published as LICENSE", recorded=False
    )
    language: str | None = flag(
        None, "language of the texts as an ISO 639 code; several separated by commas, such as en,ko"
    )
    carbon_intensity: float | None = flag(
        None,
        "grams of CO2 equivalent that a kilowatt-hour of your grid causes, for an estimate on the card",
        shown="energy only",
        recorded=False,
    )
    location: str | None = flag(
        None,
        "where the machine stands, such as South Korea, for that estimate",
        recorded=False,
        needs="carbon_intensity",
    )
    report_to: str | None = flag(
        None,
        "also send the figures of log.jsonl to tensorboard, trackio, wandb or mlflow; several separated by commas",
        shown="log.jsonl only",
        recorded=False,
        group="tracking",
    )
    checkpoint_minutes: float = flag(
        10, "save the training state this often, besides after each epoch", group="interruptions"
    )
    keep: int = flag(
        1, "training states kept; --resume falls back on an earlier one if the last one is damaged", recorded=False
    )
    resume: bool | str = flag(
        False,
        "continue the interrupted run in output_dir; hub:owner/name continues one pushed with --push_every",
        recorded=False,
    )
    overwrite: bool = flag(False, "replace the run in output_dir", recorded=False)
    push_to: str | None = flag(
        None,
        "owner/name on the Hub to publish the result as; private unless --public",
        recorded=False,
        group="publishing",
    )
    push_base: str | None = flag(
        None,
        "owner/name to publish the base model as, if it is a local or embedded one",
        recorded=False,
        needs="push_to",
    )
    push_adapter: str | None = flag(
        None,
        "owner/name to publish the adapter of a merged model as, apart; both name each other, in one collection",
        shown="beside the merged model",
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
    sign: str | None = flag(
        None,
        "private elliptic-curve key in PEM to sign what is published with",
        shown="no signature",
        recorded=False,
        needs="push_to",
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
        False,
        "check data, model, time and memory on the longest batch, then stop before training",
        recorded=False,
        group="trial and messages",
    )
    find_lr: bool = flag(
        False, "draw the loss over rising learning rates, suggest one, then stop before training", recorded=False
    )
    sweep: str | None = flag(
        None,
        "try values of a setting, such as learning_rate=1e-4,3e-4,1e-3, and keep the run that is best on the "
        "validation rows; of several settings, with blanks between them, all combinations",
        recorded=False,
    )
    trials: int | None = flag(
        None, "try N combinations only, drawn at random", shown="all", recorded=False, needs="sweep"
    )
    seeds: int | None = flag(
        None,
        "train with N seeds, from --seed on; the median run by the validation rows is the result, and its card has the "
        "mean with an interval over seeds and rows",
        shown="one",
        recorded=False,
    )
    soup: bool = flag(
        False,
        "also average the weights of the seeds, which then share their initialisation, and keep the average if it is "
        "no worse than the median run on the validation rows",
        recorded=False,
        needs="seeds",
    )
    predict_validation: bool = flag(
        False,
        "also keep the prediction for each validation row, in validation_predictions.jsonl, by which tl-hub compare "
        "chooses",
        recorded=False,
    )
    verbose: bool = flag(False, "show the libraries' own messages", recorded=False)

    def __post_init__(self) -> None:
        for setting in fields(self):
            if getattr(self, setting.name) == "":
                raise UserError(f"--{setting.name} is empty; give a value or omit it")
        if self.delimiter in ("\t", "\\t"):
            self.delimiter = "tab"  # a card shows it
        self._check_paths()
        self._check_numbers()
        self._check_texts()
        self._check_together()

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

    def _check_numbers(self) -> None:
        """Each lies in its range."""
        counts = ("epochs", "batch_size", "accumulation", "max_steps", "train_rows", "validation_rows", "test_rows")
        for name in (*counts, "streaming", "threads", "push_every", "keep", "trials"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UserError(f"--{name} is {value}; it must be at least 1")
        if self.patience is not None and self.patience < 0:
            raise UserError(f"--patience is {self.patience}; it is a number of epochs, or 0 to train to the last one")
        if self.seeds is not None and self.seeds < 2:
            raise UserError(f"--seeds is {self.seeds}; it is how many seeds to train with, at least 2")
        for name in ("learning_rate", "max_grad_norm", "checkpoint_minutes"):
            if not 0 < getattr(self, name) < math.inf:
                raise UserError(f"--{name} is {getattr(self, name)}; it must be a number greater than 0")
        if self.average is not None and not 0 < self.average < math.inf:
            raise UserError(f"--average is {self.average}; it is a number of epochs greater than 0, such as 2")
        if self.carbon_intensity is not None and not 0 < self.carbon_intensity < math.inf:
            raise UserError(f"--carbon_intensity is {self.carbon_intensity}; it is grams a kilowatt-hour, such as 430")
        if not 0 <= self.warmup < 1:
            raise UserError(f"--warmup is {self.warmup}; it is a share of the steps, from 0 to below 1")
        if not 0 <= self.weight_decay < math.inf:
            raise UserError(f"--weight_decay is {self.weight_decay}; it must be a number from 0")
        if self.train_draw is not None and not 0 <= self.train_draw < 2**32:
            raise UserError(f"--train_draw is {self.train_draw}; it must be a number from 0 to {2**32 - 1}")
        for name in ("seed", "init_seed"):
            if not 0 <= (getattr(self, name) or 0) < 2**32:
                raise UserError(f"--{name} is {getattr(self, name)}; it must be a number from 0 to {2**32 - 1}")

    def _check_texts(self) -> None:
        """Each is written as what it stands for, such as a language."""
        sources(self.eval_on or "")
        for code in (self.language or "en").split(","):
            if not (is_language(code.partition("-")[0]) and re.fullmatch(r"[a-z]+(-[A-Za-z0-9]+)*", code)):
                raise UserError(
                    f"--language {self.language}: {code!r} is not an ISO 639 code such as en, de or kor, or one with a "
                    "region such as pt-BR"
                )
        for name in ("schedule", "precision"):  # a recipe may say what no command line could
            allowed = get_args(get_type_hints(RunConfig)[name])
            if getattr(self, name) not in allowed:
                raise UserError(f"--{name} is {getattr(self, name)}; it must be one of {', '.join(allowed)}")
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

    def _check_together(self) -> None:
        """No two settings exclude each other, and none lacks the one it needs."""
        if self.example_rows and not self.examples:
            raise UserError("--example_rows and --no_examples exclude each other; give one of them")
        for name in (self.report_to or TRACKERS[0]).split(","):
            if name not in TRACKERS:
                raise UserError(f"--report_to {self.report_to}: {name!r} is not one of {', '.join(TRACKERS)}")
        if self.resume and self.overwrite:
            raise UserError("--resume and --overwrite exclude each other; give one of them")
        if isinstance(self.resume, str) and not self.resume.startswith("hub:"):
            raise UserError(f"--resume {self.resume}: give --resume alone, or --resume hub:owner/name")
        for setting in fields(self):
            needed = setting.metadata["needs"]
            if needed and getattr(self, setting.name) and not getattr(self, needed):
                raise UserError(f"--{setting.name} needs --{needed}")
        for one, other in itertools.combinations(("push_base", "push_adapter", "push_to"), 2):
            if getattr(self, one) and getattr(self, one) == getattr(self, other):
                raise UserError(f"--{one} and --{other} are both {getattr(self, one)}; give each its own repository")
        for name in ("push_revision", "push_every"):
            if self.create_pr and getattr(self, name):
                raise UserError(
                    f"--create_pr and --{name} exclude each other; a pull request is made once, against main"
                )
        for flag_name in ("sweep", "seeds"):
            if not getattr(self, flag_name):
                continue
            for name in ("find_lr", "push_every", "sweep"):
                if name != flag_name and getattr(self, name):
                    raise UserError(f"--{flag_name} and --{name} exclude each other; give one of them")
            if isinstance(self.resume, str):
                raise UserError(f"--{flag_name} goes on with --resume alone, from the folders that are here")
        for name in ("public", "dry_run"):
            if self.push_every and getattr(self, name):
                raise UserError(f"--push_every and --{name} exclude each other; a training state is private")
        for name in ("train_rows", "train_draw"):
            if self.streaming and getattr(self, name) is not None:
                raise UserError(
                    f"--streaming and --{name} exclude each other; a stream is read in its order, to the end"
                )
        for name in ("train_file", "validation_file", "test_file"):
            if self.dataset and getattr(self, name):
                raise UserError(f"--dataset and --{name} exclude each other; a data set brings its own splits")
