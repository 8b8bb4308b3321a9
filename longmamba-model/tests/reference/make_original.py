"""Checkpoints of the original state-spaces format: config.json, pytorch_model.bin, golden.safetensors.

    python make_original.py [NAME...]
"""

import math
import sys

import torch

import common
import original

COMMON = {
    "d_model": 32,
    "d_intermediate": 0,
    "n_layer": 2,
    "vocab_size": 61,
    "ssm_cfg": {},
    "attn_layer_idx": [],
    "attn_cfg": {},
    "rms_norm": True,
    "residual_in_fp32": True,
    "fused_add_norm": True,
    "pad_vocab_size_multiple": 8,
    "tie_embeddings": True,
}

CASES = {
    # Every Mamba-1 option, layer norms with bias, an untied head; 61 ids padded to 64.
    "original-mamba1-options": {
        "ssm_cfg": {"d_state": 8, "d_conv": 3, "expand": 3, "dt_rank": 5, "conv_bias": False, "bias": True},
        "rms_norm": False,
        "residual_in_fp32": False,
        "fused_add_norm": False,
        "tie_embeddings": False,
    },
    # 32 of 64 inner channels go through the SSM, the others are a gated MLP; D per element; limits on dt.
    "original-mamba2-dssm": {
        "ssm_cfg": {
            "layer": "Mamba2", "d_state": 16, "headdim": 8, "d_ssm": 32, "ngroups": 2, "D_has_hdim": True,
            "dt_limit": [0.05, 0.4], "bias": True, "chunk_size": 16,
        },
        "pad_vocab_size_multiple": 16,
        "tie_embeddings": False,
    },
    # No gated norm, and a gated MLP after every mixer: 100 is rounded up to 128.
    "original-mamba2-nonorm-mlp": {
        "d_model": 16,
        "ssm_cfg": {
            "layer": "Mamba2", "d_state": 8, "headdim": 8, "ngroups": 2, "rmsnorm": False, "conv_bias": False,
            "chunk_size": 16,
        },
        "d_intermediate": 100,
        "rms_norm": False,
    },
    # The gated norm normalises first and gates after, per group; the untouched part is wider than the SSM.
    "original-mamba2-norm-first": {
        "ssm_cfg": {
            "layer": "Mamba2", "d_state": 16, "d_conv": 2, "expand": 3, "headdim": 8, "d_ssm": 32, "ngroups": 2,
            "norm_before_gate": True, "chunk_size": 16,
        },
    },
    # As state-spaces/mamba2attn-2.7b: heads wider than d_model together, rotary on half a head, a convolution.
    "original-mamba2attn": {
        "n_layer": 4,
        "ssm_cfg": {"layer": "Mamba2", "d_state": 8, "headdim": 16, "chunk_size": 16},
        "attn_layer_idx": [1, 3],
        "attn_cfg": {
            "causal": True, "d_conv": 4, "head_dim": 16, "num_heads": 3, "out_proj_bias": False,
            "qkv_proj_bias": False, "rotary_emb_dim": 8,
        },
        "pad_vocab_size_multiple": 16,
    },
    # What that model leaves out: shared key heads, biases, an MLP beside the heads, interleaved rotary, MLPs.
    "original-mamba1attn-options": {
        "d_model": 16,
        "d_intermediate": 64,
        "ssm_cfg": {"layer": "Mamba1", "d_state": 8},
        "attn_layer_idx": [0],
        "attn_cfg": {
            "causal": True, "num_heads": 4, "num_heads_kv": 2, "mlp_dim": 200, "softmax_scale": 0.5,
            "rotary_emb_dim": 4, "rotary_emb_base": 50.0, "rotary_emb_interleaved": True,
        },
        "rms_norm": False,
        "tie_embeddings": False,
    },
}


def padded_vocab(config):
    multiple = config["pad_vocab_size_multiple"]
    return math.ceil(config["vocab_size"] / multiple) * multiple


def shapes(config):
    """The names and shapes of mamba_ssm's state dict, from its constructors."""
    width, vocab = config["d_model"], padded_vocab(config)
    out = {"backbone.embedding.weight": [vocab, width]}

    def linear(name, outputs, inputs, bias):
        out[f"{name}.weight"] = [outputs, inputs]
        if bias:
            out[f"{name}.bias"] = [outputs]

    def norm(name):
        out[f"{name}.weight"] = [width]
        if not config["rms_norm"]:
            out[f"{name}.bias"] = [width]

    def conv(name, channels, taps, bias):
        out[f"{name}.weight"] = [channels, 1, taps]
        if bias:
            out[f"{name}.bias"] = [channels]

    def mamba(at, cfg):
        inner, bias, conv_bias = cfg.get("expand", 2) * width, cfg.get("bias", False), cfg.get("conv_bias", True)
        if cfg.get("layer", "Mamba1") == "Mamba1":
            d_state, rank = cfg.get("d_state", 16), cfg.get("dt_rank", math.ceil(width / 16))
            out[f"{at}A_log"], out[f"{at}D"] = [inner, d_state], [inner]
            linear(f"{at}in_proj", 2 * inner, width, bias)
            conv(f"{at}conv1d", inner, cfg.get("d_conv", 4), conv_bias)
            linear(f"{at}x_proj", rank + 2 * d_state, inner, False)
            linear(f"{at}dt_proj", inner, rank, True)
        else:
            ssm, shared = cfg.get("d_ssm", inner), cfg.get("ngroups", 1) * cfg["d_state"]
            heads = ssm // cfg["headdim"]
            out[f"{at}dt_bias"], out[f"{at}A_log"] = [heads], [heads]
            out[f"{at}D"] = [ssm if cfg.get("D_has_hdim", False) else heads]
            linear(f"{at}in_proj", 2 * inner + 2 * shared + heads, width, bias)
            conv(f"{at}conv1d", ssm + 2 * shared, cfg.get("d_conv", 4), conv_bias)
            if cfg.get("rmsnorm", True):
                out[f"{at}norm.weight"] = [ssm]
        linear(f"{at}out_proj", width, inner, bias)

    def attention(at, cfg):
        heads, kv_heads = cfg["num_heads"], cfg.get("num_heads_kv", cfg["num_heads"])
        head_dim = cfg.get("head_dim", width // heads)
        qkv, mlp = (heads + 2 * kv_heads) * head_dim, math.ceil(cfg.get("mlp_dim", 0) / 256) * 256
        linear(f"{at}in_proj", qkv + mlp, width, cfg.get("qkv_proj_bias", True))
        if cfg.get("d_conv", 0) > 0:
            conv(f"{at}conv1d", qkv, cfg["d_conv"], True)
        linear(f"{at}out_proj", width, heads * head_dim + mlp // 2, cfg.get("out_proj_bias", True))

    for index in range(config["n_layer"]):
        at = f"backbone.layers.{index}."
        if index in config["attn_layer_idx"]:
            attention(f"{at}mixer.", config["attn_cfg"])
        else:
            mamba(f"{at}mixer.", config["ssm_cfg"])
        norm(f"{at}norm")
        if config["d_intermediate"] > 0:
            hidden = math.ceil(config["d_intermediate"] / 128) * 128
            norm(f"{at}norm2")
            linear(f"{at}mlp.fc1", 2 * hidden, width, False)
            linear(f"{at}mlp.fc2", width, hidden, False)
    norm("backbone.norm_f")
    return out


def make(name):
    config = COMMON | CASES[name]
    for seed in range(50):
        random = torch.Generator().manual_seed(seed)
        state = {key: common.lively(key, shape, random) for key, shape in shapes(config).items()}
        if config["tie_embeddings"]:
            # mamba_ssm saves the shared tensor under both names.
            state["lm_head.weight"] = state["backbone.embedding.weight"]
        else:
            head = state["backbone.embedding.weight"].shape
            state["lm_head.weight"] = torch.randn(head, generator=random) * 0.3
        weights = original.load(state)

        def logits(tokens):
            return original.logits(config, weights, tokens)

        golden = common.golden(logits, config["vocab_size"], lengths=(41, 1), seed=seed)
        if golden is not None:
            break
    else:
        sys.exit(f"{name}: no seed gives a clear greedy continuation")

    used = {key: t for key, t in weights.items() if not (config["tie_embeddings"] and key == "lm_head.weight")}
    least = common.check_every_weight_matters(logits, used, golden["case0.input_ids"])
    folder = common.FIXTURES / name
    folder.mkdir(parents=True, exist_ok=True)
    common.write_json(folder / "config.json", config)
    torch.save(state, folder / "pytorch_model.bin")
    common.write_golden(folder, golden)
    print(f"  seed {seed}; the least felt tensor is {least[0]} ({least[1]:.3f})")


if __name__ == "__main__":
    for name in sys.argv[1:] or CASES:
        make(name)
