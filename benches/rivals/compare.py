#!/usr/bin/env python3
"""Our models against other Mamba implementations on this CPU, end to end.

    benches/rivals/setup.sh target/rivals
    target/rivals/venv/bin/python benches/rivals/compare.py

Engines take turns, each run in a process of its own. Rows are kept in --out as they come; the same command goes
on where it stopped. The table goes to standard output, progress to standard error."""

import argparse
import json
import pathlib
import statistics
import sys
import time

import answers
import chart
import engines
import table
import weights
from engines import Cell, Job
from process import Failed, Process, TooLong
from rows import Rows

# Seconds that loading and warming up may take on top of the limit, and ending.
GRACE = 180


def arguments():
    root = pathlib.Path(__file__).parents[2]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [engine.name for engine in engines.ALL]
    parser.add_argument("--folder", type=pathlib.Path, default=root / "target/rivals", help="what setup.sh made")
    parser.add_argument("--out", type=pathlib.Path, help="where rows are kept; default: out in the folder")
    parser.add_argument("--shape", action="append", choices=weights.SHAPES, help="default: all")
    parser.add_argument("--dtype", action="append", choices=["f32", "bf16", "q8"], help="default: all")
    parser.add_argument("--threads", action="append", type=int, help="default: 1 and 2")
    parser.add_argument("--prefill", action="append", type=int, help="default: 512, 2048, 8192, 32768")
    parser.add_argument("--decode", type=int, default=128, help="tokens; 0: none")
    parser.add_argument("--engine", action="append", choices=names, help="default: all but candle chunked")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--warm", type=int, default=64, help="tokens that are read before anything is timed")
    parser.add_argument("--limit", type=float, default=120, help="seconds that a cell may take")
    parser.add_argument("--retry", action="store_true", help="ask again for what failed")
    parser.add_argument("--json", type=pathlib.Path, help="also all rows as one JSON file")
    parser.add_argument("--svg", type=pathlib.Path, help="also the tokens a second as bars")
    parser.add_argument("--table", action="store_true", help="only the table of the rows that are there")
    options = parser.parse_args()
    options.out = options.out or options.folder / "out"
    return options


class Comparison:
    def __init__(self, options):
        self.options = options
        (options.out / "answers").mkdir(parents=True, exist_ok=True)
        self.rows = Rows(options.out / "rows.jsonl")
        if options.retry:
            self.rows.rows = [row for row in self.rows.rows if "failed" not in row]
        folder = options.folder.resolve()
        self.engines = [make(folder) for make in engines.ALL 
                        if (make.name in options.engine if options.engine else make.usual)]
        self.ours = engines.Ours(folder)
        self.missing = {engine.name: why for engine in self.engines if (why := engine.missing())}
        self.took = {}

    def jobs(self):
        o = self.options
        return [Job(shape, dtype, threads) for shape in o.shape or weights.SHAPES
                for dtype in o.dtype or ("f32", "bf16", "q8") for threads in o.threads or (1, 2)]

    def cells(self):
        o = self.options
        decode = [Cell("decode", o.decode)] if o.decode else []
        return decode + [Cell("prefill", n) for n in sorted(o.prefill or (512, 2048, 8192, 32768))]

    def run(self):
        for name, why in self.missing.items():
            print(f"{name} is left out: {why}", file=sys.stderr)
        plan = [(job, number, engine) for job in self.jobs() for number in range(self.options.rounds)
                for engine in self.engines if engine.name not in self.missing and not engine.lacks(job)]
        for index, (job, number, engine) in enumerate(plan):
            self.turn(engine, job, number, f"[{index + 1}/{len(plan)}]", plan[index:])
        self.say("")

    def turn(self, engine, job, number, place, rest):
        """One engine's turn: what it has not measured in this round."""
        place = f"{place} {job}, round {number + 1}: {engine.name}"
        if not self.rows.answer(engine.name, job.shape, job.dtype) and not self.ours.missing():
            self.say(f"{place}, weights and answer")
            engine.model(job)
            self.ours.model(Job(job.shape, "f32", job.threads))
            self.rows.add(**answers.check(engine, self.ours, job, self.options.out / "answers"))
        open_cells = [cell for cell in self.cells() if not self.rows.measured(engine.name, job, cell, number)
                      and not self.rows.closed(engine.name, job, cell, self.options.limit)]
        if not open_cells:
            return
        start = time.monotonic()
        for command, cells in engine.processes(job, open_cells, self.options.warm):
            self.measure(engine, job, number, command, cells, place, rest)
        self.took.setdefault(engine.name, {})[job] = time.monotonic() - start

    def measure(self, engine, job, number, command, cells, place, rest):
        """Reads the lines of a process, and ends it before a cell that would take too long."""
        def add(cell, **more):
            if cell.kind != "warm":
                self.rows.add(engine=engine.name, shape=job.shape, dtype=job.dtype, threads=job.threads,
                              kind=cell.kind, tokens=cell.tokens, round=number, **more)

        limit = self.options.limit
        with Process(command, engine.environment(job)) as process:
            for index, cell in enumerate(cells):
                self.say(f"{place}, {cell}, {self.left(rest)}")
                foreseen = self.foreseen(engine, job, cell)
                if foreseen and foreseen > limit:
                    for later in cells[index:]:
                        add(later, over=limit, foreseen=foreseen * later.tokens / cell.tokens)
                    return
                try:
                    # Twice, for not every engine keeps its pace.
                    line = process.line(2 * limit + (GRACE if index == 0 else 0))
                    if line is None:
                        process.check()
                        raise Failed("it ended without this figure")
                except TooLong:
                    for later in cells[index:]:
                        add(later, over=limit)
                    return
                except Failed as failed:
                    add(cell, failed=str(failed))
                    for later in cells[index + 1:]:
                        add(later, failed=f"not tried, for {cell} failed before it")
                    return
                found, seconds = engine.row(line)
                if cell.kind != "warm" and found != cell:
                    raise SystemExit(f"{engine.name} gave {found} where {cell} was due")
                add(cell, seconds=seconds, tokens_per_s=cell.tokens / seconds, peak_rss_kb=process.peak_rss_kb())
            try:
                while process.line(GRACE):
                    pass
                process.check()
            except (Failed, TooLong) as failed:
                # Its figures cannot be trusted: logits that are no numbers, say.
                for cell in cells:
                    add(cell, failed=str(failed) or "it did not end")

    def foreseen(self, engine, job, cell):
        """Seconds for a prompt at the pace of the longest shorter one; nothing where that is not known."""
        if cell.kind != "prefill":
            return None
        known = [c for c in self.cells() if c.tokens < cell.tokens and c.kind == "prefill"]
        if engine.steps and not known:
            known = [c for c in self.cells() if c.kind == "decode"]
        for shorter in reversed(known):
            if times := self.rows.seconds(engine.name, job, shorter):
                return statistics.median(times) * cell.tokens / shorter.tokens
        return None

    def left(self, rest):
        """About how long the turns that are left take, from turns like them."""
        seconds = 0
        for job, _, engine in rest:
            of_engine = self.took.get(engine.name, {})
            alike = [of_engine[job]] if job in of_engine else []
            alike = alike or [t for j, t in of_engine.items() if j.shape == job.shape]
            alike = alike or list(of_engine.values()) or [t for of in self.took.values() for t in of.values()]
            seconds += statistics.mean(alike) if alike else 0
        return f"about {seconds / 60:.0f} min left" if seconds else "time left not known yet"

    def say(self, text):
        end = "\r" if sys.stderr.isatty() and text else "\n"
        print(f"\x1b[2K{text}" if sys.stderr.isatty() else text, end=end, file=sys.stderr, flush=True)


def main():
    options = arguments()
    comparison = Comparison(options)
    if not options.table:
        comparison.run()
    print(table.tables(comparison.rows, comparison.engines, comparison.missing))
    if options.svg:
        options.svg.write_text(chart.chart(comparison.rows, comparison.engines), encoding="utf-8")
    if options.json:
        options.json.write_text(json.dumps(comparison.rows.rows, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
