"""Whether the engines answer the same: the logits after a fixed prompt of 64 tokens, against ours in f32."""

import numpy as np

from engines import Job
from process import Failed, Process, TooLong

# ‖logits − ours in f32‖ / ‖ours in f32‖ that is let pass; logits that have nothing to do with each other are
# at about 1.4. The weights of f32 and bf16 are the same numbers, so what differs is the arithmetic. In 8 bits the
# weights differ, too, and random ones more than trained ones.
BOUND = {"f32": 1e-4, "bf16": 0.1, "q8": 0.2}
TIMEOUT = 1200


def logits(engine, job, path):
    if not path.exists():
        partial = path.with_suffix(".partial")
        with Process(engine.answer(job, partial), engine.environment(job)) as process:
            try:
                while process.line(TIMEOUT):
                    pass
            except TooLong:
                raise Failed(f"no logits after {TIMEOUT} s") from None
            process.check()
        partial.rename(path)
    return np.fromfile(path, dtype=np.float32)


def check(engine, ours, job, folder):
    """A row: the relative difference and whether it is within the bound, or why there is none."""
    def name(engine, job):
        return folder / f"{job.shape}-{job.dtype}-{engine.name.replace(' ', '-')}.logits"

    row = {"kind": "answer", "engine": engine.name, "shape": job.shape, "dtype": job.dtype}
    f32 = Job(job.shape, "f32", job.threads)
    try:
        want = logits(ours, f32, name(ours, f32))
        got = logits(engine, job, name(engine, job))
    except Failed as failed:
        return row | {"failed": str(failed)}
    if want.shape != got.shape:
        return row | {"failed": f"{got.size} logits, ours are {want.size}"}
    difference = float(np.linalg.norm(got.astype(np.float64) - want) / np.linalg.norm(want.astype(np.float64)))
    # A NaN is no match.
    return row | {"difference": difference, "bound": BOUND[job.dtype], "match": difference <= BOUND[job.dtype],
                  "same_best": bool(got.argmax() == want.argmax())}
