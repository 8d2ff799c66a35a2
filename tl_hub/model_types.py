"""What models, tokenizers and configurations are to a type checker, without the seconds that importing them takes.

A `Model` may also be in PEFT's wrapper, which passes on what is asked of it. Where a function reaches into the modules
of a model, lets it write, or takes what is none of transformers, its model is `Any`: torch does not tell the types of
what a module holds.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from peft import PeftConfig as PeftConfig
    from peft import PeftModel as PeftModel
    from transformers import PreTrainedConfig as Config
    from transformers import PreTrainedModel as Model
    from transformers import PreTrainedTokenizerBase as Tokenizer
else:
    Config = Model = PeftConfig = PeftModel = Tokenizer = Any
