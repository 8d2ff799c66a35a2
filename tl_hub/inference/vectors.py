"""Vectors of texts, from a model without a head."""

from typing import Any

import numpy as np
import torch
from peft import PeftModel

from tl_hub.architectures import ARCHITECTURES, longest_input
from tl_hub.errors import UserError
from tl_hub.inference.base import call_of_pipeline, checked_texts
from tl_hub.model_types import Model, Tokenizer
from tl_hub.tasks.classification.windows import row_means
from tl_hub.vectors.extract import POOLINGS, depth_of, encoder_of, pooled
from tl_hub.vectors.model import read_windows


class VectorsPipeline:
    """Calls give the vector of a text, (hidden,), or those of a list of texts, (texts, hidden): of an `AutoModel`.

    Texts longer than `max_length` tokens (at most what the model reads; 512 if neither is known) are read in windows
    that overlap by a quarter, whose vectors are averaged. T5 is its encoder.

    Raises:
        UserError: a family that is none of this package's, or a prompt or prefix adapter, which no encoder alone has.
    """

    def __init__(self, model: Model, tokenizer: Tokenizer, max_length: int | None = None):
        config = model.config
        if config.model_type not in ARCHITECTURES:
            known = ", ".join(ARCHITECTURES)
            raise UserError(
                f"tl_hub.pipeline gives vectors of {known}; transformers.pipeline may, of {config.model_type}"
            )
        if isinstance(model, PeftModel):
            if model.active_peft_config.is_prompt_learning:
                raise UserError("tl_hub.pipeline gives no vectors of a model with a prompt or prefix adapter")
            model = model.get_base_model()
        longest = longest_input(config)
        asked = max_length or longest or 512
        self.model, self.tokenizer, self.max_length = encoder_of(model), tokenizer, min(asked, longest or asked)
        tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token  # the attention mask leaves padding out

    @call_of_pipeline
    def __call__(
        self, text: str | list[str], layer: int | None = None, pooling: str = "mean", batch_size: int = 16
    ) -> np.ndarray:
        """Read a text, or each of a list.

        Args:
            layer: 0 is what the embeddings give, k what layer k gives; the top one if not given.
            pooling: of the tokens' vectors, one of `tl_hub.vectors.extract.POOLINGS`.

        Raises:
            UserError: a text is empty, or there is no such layer or pooling.
        """
        texts, depth = checked_texts(text), depth_of(self.model)
        layer = depth if layer is None else layer
        if not 0 <= layer <= depth or pooling not in POOLINGS:
            raise UserError(
                f"layer {layer}, pooling {pooling}: give a layer from 0 to {depth}, and {', '.join(POOLINGS)}"
            )
        if not texts:
            return np.empty((0, self.model.config.hidden_size), dtype=np.float32)

        def pool(batch: Any) -> torch.Tensor:
            return pooled(self.model, dict(batch.to(self.model.device)), [layer], [pooling])[0, 0]

        cut = self.max_length, max(1, self.max_length // 4)
        segments = "token_type_ids" in self.tokenizer.model_input_names  # as the model was trained, if by its tokenizer
        size = self.model.config.hidden_size
        vectors = row_means(*read_windows(self.tokenizer, texts, None, *cut, segments, pool, size, batch_size))
        return vectors[0] if isinstance(text, str) else vectors
