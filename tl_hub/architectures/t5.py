"""T5: an encoder that reads a text and a decoder that writes another."""

from tl_hub.architectures.base import Architecture, Shape
from tl_hub.model_types import Config, Tokenizer


def new_tokenizer() -> Tokenizer:
    from transformers import T5Tokenizer  # the package is read without torch

    return T5Tokenizer()


def new_config(tokenizer: Tokenizer, shape: Shape) -> Config:
    from transformers import T5Config

    config = T5Config(
        vocab_size=len(tokenizer),
        d_model=shape.hidden_size,
        d_kv=shape.hidden_size // shape.heads,
        d_ff=shape.intermediate_size,
        num_layers=shape.layers,
        num_heads=shape.heads,
        dropout_rate=0.0,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    config.decoder_start_token_id = tokenizer.pad_token_id
    return config


T5 = Architecture(
    title="T5",
    paper=("Raffel et al. 2020", "https://arxiv.org/abs/1910.10683"),
    example="google-t5/t5-small",
    pretrained_by="span",
    new_tokenizer=new_tokenizer,
    new_config=new_config,
    # wi is the feed-forward of the first T5, wi_0 and wi_1 that of version 1.1.
    lora_targets=("q", "k", "v", "o", "wi", "wi_0", "wi_1", "wo"),
    keys_and_values="k|v",
    attention_output="o",
    feed_forward_output="wo",
    plain_attention=True,
    layers=r"(en|de)coder\.block\.\d+",
    blocks="block",
    depth="num_decoder_layers",
    summary="last",
    final_norm="final_layer_norm",
    null_token="eos",
    encoder_decoder=True,
    # Its other heads take neither embeddings nor keys and values in place of token ids.
    prompt_tasks={"T5ForConditionalGeneration": "SEQ_2_SEQ_LM"},
    prefix_tasks={"T5ForConditionalGeneration": "SEQ_2_SEQ_LM"},
)
