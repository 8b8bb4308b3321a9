"""What compare.py makes of engines that answer, are slow, fail, or hang: `python -m unittest` in this folder,
with the Python that setup.sh installed."""

import argparse
import json
import pathlib
import struct
import tempfile
import unittest
from unittest import mock

import numpy as np

import answers
import chart
import compare
import engines
import process
import table
import weights
from engines import Cell, Job

JOB = Job("mamba-130m", "f32", 1)
CELLS = [Cell("decode", 4), Cell("prefill", 10), Cell("prefill", 100)]


class Fake(engines.Engine):
    """Runs a line of Python in which `row(kind, tokens, seconds)` prints what was asked for."""

    script = "row('decode', 4, 1); row('prefill', 10, 1); row('prefill', 100, 5)"
    asked = 0

    def __init__(self, name, script=None):
        super().__init__(None)
        self.name, self.script = name, script or self.script

    def missing(self):
        return None

    def processes(self, job, cells, warm):
        self.asked += 1
        define = (f"import json, sys, time\nasked = {[(cell.kind, cell.tokens) for cell in cells]}\n"
                  "def row(kind, tokens, seconds):\n if (kind, tokens) in asked:\n"
                  "  print(json.dumps(dict(kind=kind, tokens=tokens, seconds=seconds)), flush=True)\n")
        return [(["python3", "-c", define + self.script], cells)]


class Turns(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.out = pathlib.Path(folder.name)

    def compared(self, *fakes, limit=10, rounds=1, retry=False):
        options = argparse.Namespace(
            out=self.out, folder=self.out, shape=[JOB.shape], dtype=[JOB.dtype], threads=[1], prefill=[10, 100],
            decode=4, engine=None, rounds=rounds, warm=1, limit=limit, retry=retry)
        comparison = compare.Comparison(options)
        comparison.engines, comparison.missing = list(fakes), {}
        comparison.say = lambda text: None
        comparison.run()
        return comparison.rows

    def texts(self, rows, fake):
        return [table.text(rows, fake, JOB, cell) for cell in CELLS]

    def test_medians_and_ratios(self):
        ours = Fake("ours")
        rival = Fake("rival", "row('decode', 4, 2); row('prefill', 10, 3); row('prefill', 100, 5)")
        rows = self.compared(ours, rival, limit=50, rounds=3)
        self.assertEqual(self.texts(rows, rival), ["2.00 (2.00×)", "3.33 (3.00×)", "20.0 (1.00×)"])
        self.assertEqual((ours.asked, rival.asked), (3, 3))
        self.assertIn("<svg", chart.chart(rows, [ours, rival]))

    def test_goes_on_where_it_stopped(self):
        self.compared(Fake("ours"))
        again = Fake("ours")
        self.compared(again, rounds=2)
        self.assertEqual(again.asked, 1)

    def test_too_long_is_foreseen_and_said(self):
        slow = Fake("slow", "row('decode', 4, 1); row('prefill', 10, 2); time.sleep(60 * (len(asked) == 3))")
        rows = self.compared(Fake("ours"), slow, rounds=2)
        self.assertEqual(self.texts(rows, slow)[2], "> 10 s (> 2.0×)")
        # The second round asks for the others again, not for this one.
        self.assertEqual(len(rows.cell("slow", JOB, CELLS[2])), 1)
        self.assertEqual(len(rows.cell("slow", JOB, CELLS[1])), 2)
        longer = Fake("slow", "row('prefill', 100, 20)")
        rows = self.compared(longer, limit=30)
        self.assertEqual(self.texts(rows, longer)[2], "5.00 (4.00×)")

    def test_hanging_is_ended(self):
        hanging = Fake("hanging", "row('decode', 4, 1); time.sleep(60)")
        with mock.patch.object(compare, "GRACE", 1):
            rows = self.compared(hanging, limit=0.5)
        self.assertEqual(self.texts(rows, hanging), ["4.00", "> 0.5 s", "> 0.5 s"])

    def test_failing_says_why(self):
        failing = Fake("failing", "row('decode', 4, 1); sys.exit('no | room')")
        rows = self.compared(failing)
        self.assertEqual(self.texts(rows, failing), [
            "4.00", "failed: no / room (code 1)", "failed: not tried, for prefill 10 failed before it"])
        healed = Fake("failing")
        self.assertEqual(self.texts(self.compared(healed), failing)[1], "failed: no / room (code 1)")
        self.assertEqual(self.texts(self.compared(healed, retry=True), failing)[1], "10.0")

    def test_failing_at_the_end_spoils_its_figures(self):
        late = Fake("late", Fake.script + "; sys.exit('a logit is not finite')")
        for text in self.texts(self.compared(late), late):
            self.assertEqual(text, "failed: a logit is not finite (code 1)")

    def test_memory_is_bounded(self):
        greedy = Fake("greedy", "row('decode', 4, 1); b = bytearray(4 << 30); row('prefill', 10, 1)")
        with mock.patch.object(process, "memory_limit", lambda: 1 << 30):
            rows = self.compared(greedy)
        self.assertEqual(self.texts(rows, greedy)[1], "failed: MemoryError (code 1)")

    def test_wrong_answers_mark_the_engine(self):
        rows, logits = self.compared(Fake("ours")), {"ours": [1.0, 2.0], "off": [1.0, 2.1], "nan": [1.0, np.nan]}
        for name, values in logits.items():
            (self.out / f"mamba-130m-f32-{name}.logits").write_bytes(struct.pack("<2f", *values))
            rows.add(**answers.check(Fake(name), Fake("ours"), JOB, self.out))
        heads = [table.head(rows, name, JOB) for name in logits]
        self.assertEqual(heads, ["ours", "off **≠**", "nan **≠**"])


class Weights(unittest.TestCase):
    def test_rounding(self):
        numbers = np.array([1.0, 1 + 2**-8, 1 + 3 * 2**-8, -1 - 2**-9, 3e38], np.float32)
        want = [1.0, 1.0, 1 + 2**-6, -1.0, np.float32(3e38)]
        got = weights.widened(weights.rounded(numbers))
        np.testing.assert_allclose(got, want, rtol=2**-9)
        np.testing.assert_array_equal(got[:4], want[:4])

    def test_both_types_hold_the_same_numbers(self):
        def small(shape):
            yield "backbone.embeddings.weight", (8, 4)
            yield "backbone.layers.0.mixer.A_log", (8, 2)

        with tempfile.TemporaryDirectory() as root, mock.patch.object(weights.Shape, "tensors", small):
            data = {}
            for dtype in ("f32", "bf16"):
                file = (weights.folder(root, "mamba-130m", dtype) / "model.safetensors").read_bytes()
                size = struct.unpack("<Q", file[:8])[0]
                header = json.loads(file[8:8 + size])
                self.assertEqual(header["backbone.layers.0.mixer.A_log"]["shape"], [8, 2])
                data[dtype] = file[8 + size:]
        f32 = np.frombuffer(data["f32"], np.float32)
        np.testing.assert_array_equal(f32, weights.widened(np.frombuffer(data["bf16"], np.uint16)))
        self.assertEqual(f32.size, 48)
        self.assertTrue((f32[32:] >= 0).all() and (f32[32:] <= 2.5).all())


if __name__ == "__main__":
    unittest.main()
