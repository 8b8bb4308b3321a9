#!/usr/bin/env python3
"""The same shapes with the official kernels, where they are installed on this machine.

    python3 benches/gpu/rivals.py [--json FILE] [--quick] [WORD...]

PyTorch, mamba_ssm and causal_conv1d are looked for one by one; what is missing is named, not skipped in
silence. Times are medians over repeats between CUDA events, inputs are used in turn so that none lies in the
cache, and bytes are counted as the command `gpu` counts them. Layouts are the rivals' own: where they want
channels before tokens, they get them so. Nothing here is checked: these are other people's kernels, and their
tests are theirs. With words, only kernels whose names contain one of them."""

import argparse
import importlib
import json
import math
import statistics
import sys

COLD = 512e6
REPEATS, REPEAT_MS = 9, 20.0


class Missing(Exception):
    """A package that is not there."""


def need(module, name=None):
    """The module, or what it has of that name. A package whose compiled part fails to load is missing, too."""
    try:
        found = importlib.import_module(module)
        return getattr(found, name) if name else found
    except Exception as error:  # A broken installation raises anything.
        package = module.split(".")[0]
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise Missing(f"not installed: {package} ({module}{'.' + name if name else ''}: {reason})") from error


class Report:
    """Rows as they come: a line of a table, and a line of JSON."""

    def __init__(self, path, words):
        self.file = open(path, "w", encoding="utf-8") if path else None
        self.words, self.missing, self.failed = words, [], 0

    def line(self, **row):
        if self.file:
            print(json.dumps({"suite": "rivals", **row}), file=self.file, flush=True)

    def wants(self, kernel):
        return not self.words or any(word in kernel for word in self.words)

    def row(self, kernel, dtype, shape, times, count, floor):
        median = statistics.median(times)
        spread = (max(times) - min(times)) / median
        share = f"{100 * floor / median:.1f} %" if floor else "–"
        floor_text = f"{floor:.2f}" if floor else "–"
        print(f"| {kernel} | {dtype} | {shape} | {median:.2f} | {100 * spread:.1f} % | {floor_text} | {share} |",
              flush=True)
        self.line(kernel=kernel, dtype=dtype, shape=shape, median_us=median, spread=spread,
                  floor_us=floor or None, floor_share=floor / median if floor else None, bytes=count)

    def without(self, kernel, why):
        if why not in self.missing:
            self.missing.append(why)
        print(f"| {kernel} | | | {why} | | | |", flush=True)
        self.line(kernel=kernel, missing=why)

    def wrong(self, kernel, shape, error):
        self.failed += 1
        why = f"{type(error).__name__}: {error}".splitlines()[0]
        print(f"| {kernel} | | {shape} | failed: {why} | | | |", flush=True)
        self.line(kernel=kernel, shape=shape, failed=why)


class Bench:
    """Times calls on the device."""

    def __init__(self, torch, report, quick):
        self.torch, self.report, self.quick, self.copy = torch, report, quick, None

    def times(self, call):
        """Microseconds of one call, repeat by repeat."""
        torch = self.torch
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))

        def milliseconds(calls):
            torch.cuda.synchronize()
            start.record()
            for _ in range(calls):
                call()
            end.record()
            end.synchronize()
            return start.elapsed_time(end)

        # Compiles and tunes, where the rival does that.
        for _ in range(1 if self.quick else 5):
            call()
        calls = 1
        while not self.quick and (taken := milliseconds(calls)) < REPEAT_MS:
            calls = math.ceil(calls * min(16, max(2, 1.2 * REPEAT_MS / max(taken, 1e-3))))
        return [1e3 * milliseconds(calls) / calls for _ in range(1 if self.quick else REPEATS)]

    def sets(self, count):
        """How many sets of inputs of `count` bytes lie outside of every cache."""
        return 1 if self.quick else min(1024, max(1, math.ceil(COLD / count)))

    def case(self, kernel, dtype, shape, count, make, run):
        """Measures `run(*inputs)` over sets of inputs that `make()` makes."""
        if not self.report.wants(kernel):
            return
        try:
            with self.torch.no_grad():
                sets = [make() for _ in range(self.sets(count))]
                turn = [0]

                def call():
                    turn[0] = (turn[0] + 1) % len(sets)
                    return run(*sets[turn[0]])

                times = self.times(call)
            floor = 1e6 * count / self.copy if self.copy else None
            self.report.row(kernel, dtype, shape, times, count, floor)
        except Exception as error:  # Out of memory, a shape that a kernel refuses: the rest goes on.
            self.report.wrong(kernel, f"{dtype} {shape}", error)
        sets = None
        self.torch.cuda.empty_cache()


def dtypes(torch):
    return (("f32", torch.float32, 4), ("f16", torch.float16, 2), ("bf16", torch.bfloat16, 2))


LENGTHS = ((1, 2048), (1, 16384), (1, 65536), (8, 2048))


def copy(bench):
    torch = bench.torch
    elements = 1 << (16 if bench.quick else 28)
    source = torch.rand(elements, device="cuda")
    target = torch.empty_like(source)
    times = bench.times(lambda: target.copy_(source))
    count = 8 * elements
    bench.copy = 1e6 * count / min(times)
    print(f"torch copy: {bench.copy / 1e12:.3f} TB/s read and written\n")
    bench.report.line(ceiling="copy, bytes read and written", rate=bench.copy)


def header():
    print("| kernel | dtype | shape | µs | spread | floor µs (bytes) | floor / time |\n|---|---|---|--:|--:|--:|--:|")


def matmul(bench):
    torch = bench.torch
    layers = {
        "mamba-130m": [("in_proj", 768, 3072), ("x_proj", 1536, 80), ("dt_proj", 48, 1536),
                       ("out_proj", 1536, 768), ("head", 768, 50280)],
        "mamba-1.4b": [("in_proj", 2048, 8192), ("x_proj", 4096, 160), ("dt_proj", 128, 4096),
                       ("out_proj", 4096, 2048), ("head", 2048, 50280)],
        "mamba2-1.3b": [("in_proj", 2048, 8512), ("out_proj", 4096, 2048), ("head", 2048, 50288)],
        "largest": [("square", 8192, 8192)],
    }
    for name, dtype, size in dtypes(torch):
        if name == "f16":
            continue
        for model, parts in layers.items():
            for layer, inputs, outputs in parts:
                rows_of = (8192,) if model == "largest" else (1, 8, 256, 2048)
                for rows in rows_of:
                    if layer == "head" and rows > 256:
                        continue
                    # The rival's activations have the weight's type; ours are f32.
                    count = size * (inputs * outputs + rows * (inputs + outputs))
                    shape = f"{model} {layer}: {rows} × {inputs} → {outputs}"
                    bench.case(
                        "torch.matmul", name, shape, count,
                        lambda: (torch.randn(rows, inputs, device="cuda", dtype=dtype),
                                 torch.randn(outputs, inputs, device="cuda", dtype=dtype)),
                        lambda x, weight: torch.matmul(x, weight.T),
                    )


def scan(bench):
    torch = bench.torch
    run = need("mamba_ssm.ops.selective_scan_interface", "selective_scan_fn")
    for model, d_inner in (("mamba-130m", 1536), ("mamba-1.4b", 4096)):
        for batch, length in LENGTHS:
            for name, dtype, size in dtypes(torch):
                rows = batch * length
                count = size * rows * (4 * d_inner + 32) + 4 * d_inner * 16 * (2 * batch + 1)

                def make():
                    def tensor(*shape):
                        return torch.randn(*shape, device="cuda", dtype=dtype)
                    a = -torch.rand(d_inner, 16, device="cuda") - 0.1
                    one = torch.rand(d_inner, device="cuda")
                    return (tensor(batch, d_inner, length), tensor(batch, d_inner, length), a,
                            tensor(batch, 16, length), tensor(batch, 16, length), one,
                            tensor(batch, d_inner, length), one)

                bench.case("mamba_ssm selective_scan_fn", name, f"{model}: {batch} × {length} × {d_inner}, 16 states",
                           count, make,
                           lambda u, delta, a, b, c, d, z, bias: run(
                               u, delta, a, b, c, d, z, bias, delta_softplus=True, return_last_state=True))


def ssd(bench):
    torch = bench.torch
    run = need("mamba_ssm.ops.triton.ssd_combined", "mamba_chunk_scan_combined")
    heads, head_dim, d_state = 64, 64, 128
    for batch, length in LENGTHS:
        for name, dtype, size in dtypes(torch):
            rows, width = batch * length, heads * head_dim
            count = size * rows * (2 * width + heads + 2 * d_state) + 8 * batch * width * d_state

            def make():
                def tensor(*shape):
                    return torch.randn(*shape, device="cuda", dtype=dtype)
                one = torch.rand(heads, device="cuda")
                return (tensor(batch, length, heads, head_dim), tensor(batch, length, heads), -one - 0.1,
                        tensor(batch, length, 1, d_state), tensor(batch, length, 1, d_state), one)

            bench.case("mamba_ssm mamba_chunk_scan_combined", name,
                       f"mamba2-1.3b: {batch} × {length} × {heads} heads × {head_dim}, {d_state} states", count, make,
                       lambda x, dt, a, b, c, one: run(
                           x, dt, a, b, c, chunk_size=256, D=one, dt_bias=one - 4, dt_softplus=True,
                           return_final_states=True))


def conv1d(bench):
    torch = bench.torch
    run = need("causal_conv1d", "causal_conv1d_fn")
    for model, channels in (("mamba-130m", 1536), ("mamba-1.4b", 4096), ("mamba2-1.3b", 4352)):
        for batch, length in ((1, 2048), (1, 16384), (8, 2048)):
            for name, dtype, size in dtypes(torch):
                count = size * (2 * batch * length * channels + 5 * channels)
                bench.case(
                    "causal_conv1d_fn", name, f"{model}: {batch} × {length} × {channels}, 4 taps", count,
                    lambda: (torch.randn(batch, channels, length, device="cuda", dtype=dtype),
                             torch.randn(channels, 4, device="cuda", dtype=dtype),
                             torch.randn(channels, device="cuda", dtype=dtype)),
                    lambda x, weight, bias: run(x, weight, bias, activation="silu"),
                )


def models(bench):
    """Whole models with random weights, bf16: a prompt, and steps replayed from mamba_ssm's own graphs."""
    torch, report = bench.torch, bench.report
    config_of = need("mamba_ssm.models.config_mamba", "MambaConfig")
    model_of = need("mamba_ssm.models.mixer_seq_simple", "MambaLMHeadModel")
    shapes = {"mamba-130m": (768, 24, {}, 8), "mamba-1.4b": (2048, 48, {}, 8),
              "mamba2-1.3b": (2048, 48, {"layer": "Mamba2"}, 16)}
    print("\n| model (mamba_ssm) | prompt | prefill tokens/s | decode tokens/s, launched | decode tokens/s, graph |")
    print("|---|--:|--:|--:|--:|")
    for name, (d_model, layers, ssm, multiple) in shapes.items():
        if bench.quick:
            d_model, layers = 128, 2
        try:
            config = config_of(d_model=d_model, n_layer=layers, vocab_size=50277, ssm_cfg=dict(ssm),
                               rms_norm=True, residual_in_fp32=True, fused_add_norm=True,
                               pad_vocab_size_multiple=multiple)
            model = model_of(config, device="cuda", dtype=torch.bfloat16).eval()
            for prompt in (512, 2048):
                tokens = torch.randint(50277, (1, prompt), device="cuda")
                with torch.no_grad():
                    times = bench.times(lambda: model(tokens, num_last_tokens=1))
                    prefill = 1e6 * prompt / statistics.median(times)
                    decode = {graph: generated(torch, model, tokens, graph, 8 if bench.quick else 128)
                              for graph in (False, True)}
                print(f"| {name} | {prompt} | {prefill:.1f} | {decode[False]:.2f} | {decode[True]:.2f} |", flush=True)
                report.line(model=name, prompt=prompt, prefill_tokens_per_s=prefill,
                            decode_tokens_per_s=decode[True], decode_launched_tokens_per_s=decode[False])
            del model
        except Exception as error:  # One model that does not fit says nothing of the others.
            report.wrong(f"model {name}", "", error)
        torch.cuda.empty_cache()


def generated(torch, model, tokens, graph, steps):
    """Tokens a second after the prompt: the difference between a long and a short generation."""
    def seconds(more):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda.synchronize()
        start.record()
        model.generate(tokens, max_length=tokens.shape[1] + more, cg=graph, top_k=1, eos_token_id=None)
        end.record()
        end.synchronize()
        return start.elapsed_time(end) / 1e3

    # The cache of states is made for a length; the longest comes first.
    seconds(1 + steps)
    differences = [seconds(1 + steps) - seconds(1) for _ in range(3)]
    return steps / statistics.median(differences)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", metavar="FILE")
    parser.add_argument("--quick", action="store_true", help="one call each")
    parser.add_argument("words", nargs="*", metavar="WORD")
    options = parser.parse_args()
    report = Report(options.json, options.words)
    try:
        torch = need("torch")
    except Missing as missing:
        print(missing)
        report.line(missing=str(missing))
        return 3
    if not torch.cuda.is_available():
        print("not run: PyTorch sees no CUDA device")
        report.line(missing="PyTorch sees no CUDA device")
        return 3
    versions = [f"torch {torch.__version__}"]
    for package in ("triton", "mamba_ssm", "causal_conv1d"):
        try:
            versions.append(f"{package} {getattr(need(package), '__version__', '?')}")
        except Missing as missing:
            print(missing)
    print(f"{torch.cuda.get_device_name()}, {', '.join(versions)}\n")
    report.line(device=torch.cuda.get_device_name(), versions=versions, quick=options.quick)
    torch.backends.cuda.matmul.allow_tf32 = False
    bench = Bench(torch, report, options.quick)
    copy(bench)
    header()
    for part in (matmul, scan, ssd, conv1d, models):
        if part is models and not report.wants("models"):
            continue
        try:
            part(bench)
        except Missing as missing:
            report.without(part.__name__, str(missing))
    if report.missing:
        print("\nNot run, because it is missing here:\n")
        print("\n".join(f"- {what}" for what in report.missing))
    if report.failed:
        print(f"\n{report.failed} rows failed.")
    report.line(missing=report.missing, failed=report.failed)
    return 1 if report.failed else 3 if report.missing else 0


if __name__ == "__main__":
    sys.exit(main())
