"""Families for tests that take seconds for each: one for each objective of pretraining."""

from typing import get_args

from tl_hub.architectures import Objective, pretrained_by

ONE_OF_EACH = [pretrained_by([objective])[0] for objective in get_args(Objective)]
