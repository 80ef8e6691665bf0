"""A sentence model in ONNX small enough to be made by a test: an embedding a word, of which the mean is taken."""

import json
from pathlib import Path

import numpy
import onnx
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace

DIMENSIONS = 8
WORDS = ["[PAD]", "[UNK]", "how", "do", "can", "i", "reset", "my", "password", "username", "what", "is", "it", "?"]


def make_model(folder: Path, *, seed: int = 1) -> Path:
    """Write the model's files into `folder`, which is made; `seed` makes another model."""
    folder.mkdir(parents=True, exist_ok=True)
    table = numpy.random.default_rng(seed).normal(size=(len(WORDS), DIMENSIONS)).astype(numpy.float32)
    shape = ["batch", "tokens"]
    inputs = [helper.make_tensor_value_info(name, TensorProto.INT64, shape) for name in ("input_ids", "attention_mask")]
    output = helper.make_tensor_value_info("last_hidden_state", TensorProto.FLOAT, [*shape, DIMENSIONS])
    node = helper.make_node("Gather", ["table", "input_ids"], ["last_hidden_state"], axis=0)
    graph = helper.make_graph([node], "words", inputs, [output], [numpy_helper.from_array(table, "table")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.save(model, str(folder / "model.onnx"))
    tokenizer = Tokenizer(WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.save(str(folder / "tokenizer.json"))
    for name, document in (
        ("config.json", {"hidden_size": DIMENSIONS, "pad_token_id": 0}),
        ("tokenizer_config.json", {"model_max_length": 128, "pad_token": "[PAD]"}),
        ("special_tokens_map.json", {"unk_token": "[UNK]", "pad_token": "[PAD]"}),
    ):
        (folder / name).write_text(json.dumps(document))
    return folder
