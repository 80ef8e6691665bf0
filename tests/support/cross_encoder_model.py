"""A cross-encoder in ONNX small enough to be made by a test: a number a word, of which the sum is taken."""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy
import onnx
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing

ALIKE = 6.0
"""The number of two texts that have none of the words that count."""


def make_cross_encoder(
    folder: Path, words: Mapping[str, float], *, alike: float = ALIKE, outputs: int = 1, most_tokens: int = 64
) -> Path:
    """Write a model into `folder`, which is made: its number for two texts is `alike`, and for each of `words` that is
    in one of them what that counts. `outputs`: it gives so many numbers, all others 0. It reads `most_tokens`."""
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = ["[UNK]", "[CLS]", "[SEP]", *words]
    table = numpy.zeros((len(vocabulary), outputs), numpy.float32)
    table[:, -1] = [0.0, alike, 0.0, *words.values()]
    shape = ["batch", "tokens"]
    names = ("input_ids", "attention_mask", "token_type_ids")
    inputs = [helper.make_tensor_value_info(name, TensorProto.INT64, shape) for name in names]
    output = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", outputs])
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["each"], axis=0),
        helper.make_node("ReduceSum", ["each", "axes"], ["logits"], keepdims=0),
    ]
    constants = [
        numpy_helper.from_array(table, "table"),
        numpy_helper.from_array(numpy.array([1], numpy.int64), "axes"),
    ]
    graph = helper.make_graph(nodes, "words", inputs, [output], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.save(model, str(folder / "model.onnx"))
    tokenizer = Tokenizer(WordLevel({word: number for number, word in enumerate(vocabulary)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 1), ("[SEP]", 2)],
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "config.json").write_text(json.dumps({"max_position_embeddings": most_tokens}))
    return folder
