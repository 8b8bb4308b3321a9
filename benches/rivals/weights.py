"""The shapes that are compared, as folders with random weights in transformers' layout.

A folder of f32 holds exactly the values of its bf16 sister, so that all engines can be asked for the same
answer. The ranges are those of `benches/src/bin/full_size/weights.rs`: activations stay tame."""

import json
import math
import os
import pathlib
import struct
import zlib

import numpy as np

SHAPES = ("mamba-130m", "mamba2-130m", "mamba-1.4b", "mamba2-1.3b")
TABLE = pathlib.Path(__file__).parents[2] / "longmamba-model/tests/shapes"
STATE = {"mamba": 16, "mamba2": 128}
HEAD_DIM, CONV = 64, 4


class Shape:
    """A published shape: its config as transformers writes it, and its tensors."""

    def __init__(self, name):
        published = json.loads((TABLE / f"{name}.json").read_text())
        multiple = published["pad_vocab_size_multiple"]
        self.name = name
        self.family = "mamba2" if published["ssm_cfg"].get("layer") == "Mamba2" else "mamba"
        self.layers, self.width = published["n_layer"], published["d_model"]
        self.vocab = -(-published["vocab_size"] // multiple) * multiple
        self.inner, self.state = 2 * self.width, STATE[self.family]
        self.rank, self.heads = -(-self.width // 16), self.inner // HEAD_DIM

    def config(self, dtype):
        common = {
            "architectures": ["Mamba2ForCausalLM" if self.family == "mamba2" else "MambaForCausalLM"],
            "model_type": self.family, "hidden_size": self.width, "num_hidden_layers": self.layers,
            "vocab_size": self.vocab, "state_size": self.state, "conv_kernel": CONV, "expand": 2,
            "hidden_act": "silu", "layer_norm_epsilon": 1e-5, "residual_in_fp32": True, "use_bias": False,
            "use_conv_bias": True, "tie_word_embeddings": True, "use_cache": True,
            "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0,
            "dtype": {"f32": "float32", "bf16": "bfloat16"}[dtype],
        }
        if self.family == "mamba2":
            own = {"num_heads": self.heads, "head_dim": HEAD_DIM, "n_groups": 1, "chunk_size": 256}
        else:
            own = {"intermediate_size": self.inner, "time_step_rank": self.rank}
        return common | own

    def tensors(self):
        """Names and shapes, in the order in which they are written."""
        inner, state, width = self.inner, self.state, self.width
        yield "backbone.embeddings.weight", (self.vocab, width)
        for layer in range(self.layers):
            block = f"backbone.layers.{layer}"
            yield f"{block}.norm.weight", (width,)
            if self.family == "mamba2":
                channels, heads = inner + 2 * state, self.heads
                mixer = {
                    "in_proj.weight": (inner + channels + heads, width), "conv1d.weight": (channels, 1, CONV),
                    "conv1d.bias": (channels,), "dt_bias": (heads,), "A_log": (heads,), "D": (heads,),
                    "norm.weight": (inner,), "out_proj.weight": (width, inner),
                }
            else:
                mixer = {
                    "in_proj.weight": (2 * inner, width), "conv1d.weight": (inner, 1, CONV),
                    "conv1d.bias": (inner,), "x_proj.weight": (self.rank + 2 * state, inner),
                    "dt_proj.weight": (inner, self.rank), "dt_proj.bias": (inner,), "A_log": (inner, state),
                    "D": (inner,), "out_proj.weight": (width, inner),
                }
            for name, shape in mixer.items():
                yield f"{block}.mixer.{name}", shape
        yield "backbone.norm_f.weight", (width,)


def values(name, shape):
    """A weight as the bits of its bf16 numbers."""
    last = name.rsplit(".", 1)[-1]
    bound = math.sqrt(3 / shape[-1])
    low, high = -bound, bound
    if last == "A_log":
        low, high = 0, 2.5
    elif last == "dt_bias" or name.endswith("dt_proj.bias"):
        low, high = -6, -2
    elif last == "D" or "norm" in name:
        low, high = 0.9, 1.1
    random = np.random.default_rng(zlib.crc32(name.encode()))
    drawn = random.random(shape, dtype=np.float32) * np.float32(high - low) + np.float32(low)
    return rounded(drawn)


def rounded(array):
    """f32 to the bits of the nearest bf16, ties to even."""
    bits = array.view(np.uint32)
    return ((bits + (((bits >> 16) & 1) + 0x7FFF)) >> 16).astype(np.uint16)


def widened(bits):
    """The bits of bf16 numbers as f32."""
    return (bits.astype(np.uint32) << 16).view(np.float32)


def folder(root, name, dtype):
    """The folder of a shape, which is written where it is not there yet."""
    path = pathlib.Path(root) / "weights" / f"{name}-{dtype}"
    if (path / "config.json").exists():
        return path
    path.mkdir(parents=True, exist_ok=True)
    shape, size = Shape(name), {"f32": 4, "bf16": 2}[dtype]
    header, end = {"__metadata__": {"format": "pt"}}, 0
    for tensor, dims in shape.tensors():
        start, end = end, end + size * math.prod(dims)
        header[tensor] = {"dtype": dtype.upper(), "shape": list(dims), "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path / "model.safetensors", "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for tensor, dims in shape.tensors():
            bits = values(tensor, dims)
            (widened(bits) if dtype == "f32" else bits).tofile(file)
    # Last, so that a folder that was cut off is written again.
    partial = path / "config.partial"
    partial.write_text(json.dumps(shape.config(dtype), indent=1))
    os.replace(partial, path / "config.json")
    return path
