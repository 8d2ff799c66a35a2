"""Files of a run folder: the names that libraries give them."""

import fnmatch

import peft.utils
import pytest
import transformers
from transformers import utils
from transformers.tokenization_utils_base import ADDED_TOKENS_FILE, SPECIAL_TOKENS_MAP_FILE

from tl_hub import run_folder


def published(name: str) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in run_folder.PUBLISHED)


def test_what_libraries_write_is_published():
    names = [utils.CONFIG_NAME, utils.GENERATION_CONFIG_NAME, utils.SAFE_WEIGHTS_NAME, utils.SAFE_WEIGHTS_INDEX_NAME]
    names += [utils.CHAT_TEMPLATE_FILE, ADDED_TOKENS_FILE, SPECIAL_TOKENS_MAP_FILE, "model-00001-of-00002.safetensors"]
    names += [peft.utils.CONFIG_NAME, peft.utils.SAFETENSORS_WEIGHTS_NAME]
    for name in names:
        assert published(name), name
    for name in (peft.utils.CONFIG_NAME, peft.utils.SAFETENSORS_WEIGHTS_NAME):
        assert published(f"adapter/{name}")
    for name in (utils.WEIGHTS_NAME, peft.utils.WEIGHTS_NAME, "optimizer.pt", "training_args.bin"):
        assert not published(name), "pickles"


@pytest.mark.parametrize("family", ["bert", "gpt2", "t5", "xlnet", "roberta", "distilbert"])
def test_a_saved_tokenizer_is_published_whole(checkpoint_folders, family, tmp_path):
    tokenizer = transformers.AutoTokenizer.from_pretrained(checkpoint_folders(family))
    tokenizer.chat_template = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
    tokenizer.save_pretrained(tmp_path)
    written = [path.name for path in tmp_path.iterdir()]
    assert "chat_template.jinja" in written
    assert all(published(name) for name in written)


def test_layers_of_sentence_transformers_are_published(checkpoint_folders, tmp_path):
    library = pytest.importorskip("sentence_transformers", reason="needs it: pip install -e '.[test]'")
    from sentence_transformers.sentence_transformer.modules import Dense, Pooling, Transformer

    encoder = Transformer(str(checkpoint_folders("bert")))
    width = encoder.get_embedding_dimension()
    layers = [Pooling(width), Dense(width, 8)]
    library.SentenceTransformer(modules=[encoder, *layers]).save(str(tmp_path))
    written = [path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()]
    assert "modules.json" in written
    assert {name for name in written if not published(name)} <= {"README.md"}
