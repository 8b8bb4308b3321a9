"""The engines: where each one is found, what it can compute, and how it is asked for it.

An engine is a process that prints a line of JSON for each cell, short prompts before long ones."""

import dataclasses
import importlib.util
import json
import pathlib
import re

import gguf_file
import text
import weights

HERE = pathlib.Path(__file__).parent


@dataclasses.dataclass(frozen=True)
class Job:
    shape: str
    dtype: str  # f32, bf16 or q8
    threads: int

    def __str__(self):
        return f"{self.shape} {self.dtype}, {self.threads} thread{'s' * (self.threads > 1)}"


@dataclasses.dataclass(frozen=True)
class Cell:
    kind: str  # decode or prefill
    tokens: int

    def __str__(self):
        return f"{self.kind} {self.tokens}"


class Engine:
    """A program with the arguments and rows of our `speed`."""

    name, dtypes = "", ("f32", "bf16")
    # What the reader of the table should know of it.
    computes = ""
    # Run where no engine is named.
    usual = True
    # Prompts are read token by token, so they take as long as decoding.
    steps = False

    def __init__(self, folder):
        self.folder = folder

    def program(self):
        raise NotImplementedError

    def extra(self, job):
        return []

    def missing(self):
        """Why it cannot be run at all, or nothing."""
        path = pathlib.Path(self.program()[-1])
        return None if path.exists() else f"{path} is not there: run setup.sh"

    def lacks(self, job):
        """Why it has no figures for a job, or nothing."""
        return None if job.dtype in self.dtypes else f"no {job.dtype}"

    def model(self, job):
        """The weights, written where they are not there yet."""
        return weights.folder(self.folder, job.shape, job.dtype)

    def environment(self, job):
        return {"RAYON_NUM_THREADS": str(job.threads), "OMP_NUM_THREADS": str(job.threads),
                "HF_HUB_OFFLINE": "1"}

    def command(self, job):
        return [*self.program(), self.model(job), "--dtype", job.dtype, "--threads", job.threads, *self.extra(job)]

    def processes(self, job, cells, warm):
        """The commands that measure the cells, each with the cells it prints, in that order."""
        cells = sorted(cells, key=lambda cell: (cell.kind, cell.tokens))
        asked = [word for cell in cells for word in (f"--{cell.kind}", cell.tokens)]
        return [(self.command(job) + ["--warm", warm, *asked], cells)]

    def row(self, line):
        """Kind, tokens and seconds of a line, or nothing."""
        row = json.loads(line)
        return Cell(row["kind"], row["tokens"]), row["seconds"]

    def answer(self, job, out):
        """The command that writes the last logits of the fixed prompt."""
        return self.command(job) + ["--logits", out]


class Ours(Engine):
    name = "ours"
    computes = "logits of the last token of a prompt"
    # What --compute is for each dtype; none for those that we do not have.
    compute = {"f32": "auto", "bf16": "auto", "q8": "int8"}
    dtypes = tuple(compute)

    def program(self):
        return [self.folder / "cargo/release/speed"]

    def extra(self, job):
        return ["--compute", self.compute[job.dtype]]

    def model(self, job):
        # 8 bits are made of the bf16 weights when they are loaded.
        return weights.folder(self.folder, job.shape, "bf16" if job.dtype == "q8" else job.dtype)


class Llama(Engine):
    name, dtypes = "llama.cpp", ("f32", "bf16", "q8")
    computes = "llama-bench, defaults (batches of 2048, 512 together), logits of the last token; q8 is q8_0"

    def program(self):
        return [self.folder / "llama-build/bin/llama-bench"]

    def model(self, job):
        return gguf_file.file(self.folder, job.shape, job.dtype)

    def processes(self, job, cells, warm):
        # The first prompt warms up and is not counted. Decoding goes by itself, for it comes last otherwise.
        common = [*self.program(), "-m", self.model(job), "-t", job.threads, "-r", 1, "--no-warmup", "-o", "jsonl"]
        out = []
        for cell in cells:
            if cell.kind == "decode":
                out.append((common + ["-p", warm, "-n", cell.tokens], [cell]))
        prompts = sorted(cell.tokens for cell in cells if cell.kind == "prefill")
        if prompts:
            lengths = ",".join(map(str, [warm, *prompts]))
            out.append((common + ["-n", 0, "-p", lengths], [Cell("prefill", n) for n in prompts]))
        for _, expected in out:
            expected.insert(0, Cell("warm", warm))
        return out

    def row(self, line):
        row = json.loads(line)
        kind, tokens = ("decode", row["n_gen"]) if row["n_gen"] else ("prefill", row["n_prompt"])
        return Cell(kind, tokens), row["avg_ns"] / 1e9

    def answer(self, job, out):
        program = self.folder / "llama-build/bin/llama-logits"
        return [program, self.model(job), job.threads, out, *text.tokens(0, text.ANSWER)]


class Transformers(Engine):
    name = "transformers"
    computes = "eager, its own cache, logits of the last token"

    def program(self):
        return [self.folder / "venv/bin/python", HERE / "transformers_engine.py"]

    def missing(self):
        found = [module for module in ("torch", "transformers") if importlib.util.find_spec(module) is None]
        return f"{' and '.join(found)} not installed in this Python: run setup.sh, use its venv" if found else None


class Candle(Engine):
    name, steps = "candle", True
    computes = "token by token as in its example, logits of every token"

    def program(self):
        return [self.folder / "cargo-native/release/rival-candle"]


class CandleChunked(Candle):
    name, steps, usual = "candle chunked", False, False
    computes = "Mamba-2 only: its example's --use-prefill, chunks of 256, logits of every token"

    def lacks(self, job):
        return super().lacks(job) or (None if re.match("mamba2-", job.shape) else "Mamba-2 only")

    def extra(self, job):
        return ["--chunk", 256]


class MambaRs(Engine):
    name, dtypes = "mamba-rs", ("f32",)
    computes = "feature gemm-blas, packed for decoding, logits of the last token"

    def program(self):
        return [self.folder / "cargo-native/release/rival-mamba-rs"]


ALL = (Ours, Llama, Transformers, Candle, CandleChunked, MambaRs)
