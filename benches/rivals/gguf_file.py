"""The same weights as GGUF files for llama.cpp, laid out as its own converter lays them out: A = -exp(A_log),
no middle dimension in the convolution, vectors and the convolution in f32 whatever the file's type. There
is no tokenizer in them, only the size of the vocabulary."""

import os
import pathlib

import gguf
import numpy as np

import weights

NAMES = {
    "backbone.embeddings.weight": "token_embd.weight",
    "backbone.norm_f.weight": "output_norm.weight",
    "norm.weight": "attn_norm.weight",
    "mixer.in_proj.weight": "ssm_in.weight",
    "mixer.conv1d.weight": "ssm_conv1d.weight",
    "mixer.conv1d.bias": "ssm_conv1d.bias",
    "mixer.x_proj.weight": "ssm_x.weight",
    "mixer.dt_proj.weight": "ssm_dt.weight",
    "mixer.dt_proj.bias": "ssm_dt.bias",
    "mixer.dt_bias": "ssm_dt.bias",
    "mixer.A_log": "ssm_a",
    "mixer.D": "ssm_d",
    "mixer.norm.weight": "ssm_norm.weight",
    "mixer.out_proj.weight": "ssm_out.weight",
}
TYPES = {
    "f32": (gguf.LlamaFileType.ALL_F32, gguf.GGMLQuantizationType.F32),
    "bf16": (gguf.LlamaFileType.MOSTLY_BF16, gguf.GGMLQuantizationType.BF16),
    "q8": (gguf.LlamaFileType.MOSTLY_Q8_0, gguf.GGMLQuantizationType.Q8_0),
}


def file(root, name, dtype):
    """The GGUF file of a shape in f32, bf16 or q8 (q8_0), which is written where it is not there yet."""
    path = pathlib.Path(root) / "weights" / f"{name}-{dtype}.gguf"
    if path.exists():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    shape, (file_type, matrix_type) = weights.Shape(name), TYPES[dtype]
    writer = gguf.GGUFWriter(None, shape.family)
    describe(writer, shape, file_type)
    for tensor, dims in shape.tensors():
        kind, stored = layout(shape, tensor, dims, matrix_type)
        size = stored if kind == gguf.GGMLQuantizationType.F32 else gguf.quant_shape_to_byte_shape(stored, kind)
        count = int(np.prod(size)) * (4 if kind == gguf.GGMLQuantizationType.F32 else 1)
        element = np.float32 if kind == gguf.GGMLQuantizationType.F32 else np.uint8
        writer.add_tensor_info(new_name(tensor), size, np.dtype(element), count, raw_dtype=kind)
    partial = path.with_suffix(".partial")
    writer.write_header_to_file(partial)
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for tensor, dims in shape.tensors():
        kind, stored = layout(shape, tensor, dims, matrix_type)
        values = weights.widened(weights.values(tensor, dims)).reshape(stored)
        if tensor.endswith(".A_log"):
            values = -np.exp(values)
        writer.write_tensor_data(np.ascontiguousarray(gguf.quants.quantize(values, kind)))
    writer.close()
    os.replace(partial, path)
    return path


def describe(writer, shape, file_type):
    writer.add_name(shape.name)
    writer.add_context_length(2**20)
    writer.add_embedding_length(shape.width)
    writer.add_feed_forward_length(0)
    writer.add_head_count(0)
    writer.add_block_count(shape.layers)
    writer.add_ssm_conv_kernel(weights.CONV)
    writer.add_ssm_inner_size(shape.inner)
    writer.add_ssm_state_size(shape.state)
    if shape.family == "mamba2":
        writer.add_ssm_time_step_rank(shape.heads)
        writer.add_ssm_group_count(1)
    else:
        writer.add_ssm_time_step_rank(shape.rank)
        writer.add_ssm_dt_b_c_rms(False)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_file_type(file_type)
    writer.add_vocab_size(shape.vocab)
    writer.add_tokenizer_model("none")


def new_name(tensor):
    if tensor in NAMES:
        return NAMES[tensor]
    _, _, layer, rest = tensor.split(".", 3)
    return f"blk.{layer}.{NAMES[rest]}"


def layout(shape, tensor, dims, matrix_type):
    """How a tensor is stored: its type and its dimensions."""
    f32 = gguf.GGMLQuantizationType.F32
    if "conv1d.weight" in tensor:
        return f32, (dims[0], dims[2])
    if shape.family == "mamba2" and tensor.endswith((".A_log", ".D")):
        return f32, (*dims, 1)
    if tensor.endswith("mixer.norm.weight"):
        return f32, (1, *dims)
    if len(dims) == 1 or tensor.endswith(".A_log"):
        return f32, dims
    # Rows that no whole number of blocks fills are f16 there.
    whole = dims[-1] % gguf.GGML_QUANT_SIZES[matrix_type][0] == 0
    return (matrix_type if whole else gguf.GGMLQuantizationType.F16), dims
