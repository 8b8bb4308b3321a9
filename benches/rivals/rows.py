"""What was measured, kept as it comes: a file of JSON lines that a later run goes on from."""

import json

from engines import Cell, Job


class Rows:
    def __init__(self, path):
        self.path, self.rows = path, []
        if path.exists():
            self.rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]

    def add(self, **row):
        self.rows.append(row)
        with open(self.path, "a", encoding="utf-8") as file:
            print(json.dumps(row), file=file)

    def cell(self, engine, job, cell):
        """All rows of a cell."""
        wanted = {"engine": engine, "shape": job.shape, "dtype": job.dtype, "threads": job.threads,
                  "kind": cell.kind, "tokens": cell.tokens}
        return [row for row in self.rows if all(row.get(key) == value for key, value in wanted.items())]

    def seconds(self, engine, job, cell):
        return [row["seconds"] for row in self.cell(engine, job, cell) if "seconds" in row]

    def closed(self, engine, job, cell, limit):
        """Whether a cell failed or takes too long, so that no round asks for it again."""
        return any("failed" in row or row.get("over", -1) >= limit for row in self.cell(engine, job, cell))

    def measured(self, engine, job, cell, number):
        return any("seconds" in row and row["round"] == number for row in self.cell(engine, job, cell))

    def answer(self, engine, shape, dtype):
        """How far an engine's logits are from ours in f32, or why it is not known; nothing where not asked."""
        found = [row for row in self.rows if row.get("kind") == "answer" and row["engine"] == engine
                 and row["shape"] == shape and row["dtype"] == dtype]
        return found[-1] if found else None

    def jobs(self):
        """Jobs and cells that there are rows of, in the order of their first row."""
        out = {}
        for row in self.rows:
            if row["kind"] in ("decode", "prefill"):
                cells = out.setdefault(Job(row["shape"], row["dtype"], row["threads"]), set())
                cells.add(Cell(row["kind"], row["tokens"]))
        return out
