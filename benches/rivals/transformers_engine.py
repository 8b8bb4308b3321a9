"""Hugging Face transformers on PyTorch, eager, with its own cache: the arguments and the rows of `speed`.

Its logits are asked for at the last token only (`logits_to_keep=1`)."""

import argparse
import json
import pathlib
import time

import torch
import transformers

from text import ANSWER, tokens


class Engine:
    def __init__(self, model, dtype):
        kind = {"f32": torch.float32, "bf16": torch.bfloat16}[dtype]
        self.model = transformers.AutoModelForCausalLM.from_pretrained(model, dtype=kind).eval()
        self.cache = self.logits = None

    def read(self, new):
        """Tokens after those that the cache knows."""
        known = {} if self.cache is None else {"cache": self.cache}
        out = self.model(torch.tensor([new]), use_cache=True, logits_to_keep=1, **known)
        self.cache, self.logits = out.cache, out.logits[0, -1]

    def prefill(self, prompt):
        self.cache = None
        self.read(prompt)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=pathlib.Path)
    parser.add_argument("--dtype", choices=["f32", "bf16"], default="f32")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--prefill", type=int, action="append", default=[])
    parser.add_argument("--decode", type=int, default=0)
    parser.add_argument("--warm", type=int, default=ANSWER)
    parser.add_argument("--logits", type=pathlib.Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.set_num_interop_threads(1)

    def row(kind, count, seconds):
        print(json.dumps({"engine": "transformers", "model": options.model.name, "dtype": options.dtype,
                          "threads": options.threads, "kind": kind, "tokens": count, "seconds": seconds,
                          "tokens_per_s": count / seconds}), flush=True)

    with torch.inference_mode():
        engine = Engine(options.model, options.dtype)
        if options.logits:
            engine.prefill(tokens(0, ANSWER))
            options.logits.write_bytes(engine.logits.float().numpy().tobytes())
        if not options.prefill and not options.decode:
            return
        engine.prefill(tokens(0, options.warm))
        for token in tokens(options.warm, 8):
            engine.read([token])
        if options.decode:
            engine.prefill(tokens(0, ANSWER))
            following = tokens(ANSWER, options.decode)
            start = time.perf_counter()
            for token in following:
                engine.read([token])
            row("decode", options.decode, time.perf_counter() - start)
        for length in sorted(options.prefill):
            prompt = tokens(0, length)
            start = time.perf_counter()
            engine.prefill(prompt)
            row("prefill", length, time.perf_counter() - start)


main()
