"""The rows as Markdown: medians over rounds, and how many times as fast ours is."""

import os
import platform
import statistics


def tables(rows, engines, missing):
    """All tables. `missing`: why engines are not there, by name."""
    out = [machine()]
    for job, cells in rows.jobs().items():
        out.append(f"\n### {job}\n")
        names = [engine.name for engine in engines if engine.name not in missing]
        out.append("| tokens/s | " + " | ".join(head(rows, name, job) for name in names) + " |")
        out.append("|---" * (len(names) + 1) + "|")
        for cell in sorted(cells, key=lambda cell: (cell.kind != "prefill", cell.tokens)):
            texts = [text(rows, engine, job, cell) for engine in engines if engine.name not in missing]
            out.append(f"| {cell} | " + " | ".join(texts) + " |")
        out += notes(rows, names, job, cells)
    out.append("\nIn brackets: how many times as fast ours is. `> S s`: longer than the limit, measured or "
               "foreseen from the shorter length.\n")
    out += [f"- {engine.name}: {missing.get(engine.name, engine.computes)}" for engine in engines]
    return "\n".join(out)


def machine():
    """The processor and the memory of this machine."""
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        names = [line.split(":", 1)[1].strip() for line in file if line.startswith("model name")]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{names[0] if names else platform.machine()}, {os.cpu_count()} CPUs, {memory:.0f} GiB."


def head(rows, name, job):
    """The engine's name, marked where its answers were not those of ours."""
    answer = rows.answer(name, job.shape, job.dtype)
    wrong = answer is not None and not answer.get("match")
    return f"{name} **≠**" if wrong else name


def text(rows, engine, job, cell):
    """What the table says of a cell."""
    if engine.lacks(job):
        return engine.lacks(job)
    found = rows.cell(engine.name, job, cell)
    for row in found:
        if "failed" in row:
            return f"failed: {row['failed']}".replace("|", "/")
    times = rows.seconds(engine.name, job, cell)
    ours = rows.seconds("ours", job, cell) if engine.name != "ours" else []
    ours = statistics.median(ours) if ours else None
    if times:
        median = statistics.median(times)
        ratio = f" ({median / ours:.2f}×)" if ours else ""
        return f"{number(cell.tokens / median)}{ratio}"
    for row in found:
        if "over" in row:
            ratio = f" (> {row['over'] / ours:.1f}×)" if ours and row["over"] > ours else ""
            return f"> {row['over']:g} s{ratio}"
    return "not run"


def number(value):
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def notes(rows, names, job, cells):
    """How far rounds were apart, how much memory was taken, and how far the answers were from ours."""
    memory, answers, apart = [], [], []
    for name in names:
        of_engine = [row for cell in cells for row in rows.cell(name, job, cell)]
        peaks = [row["peak_rss_kb"] for row in of_engine if row.get("peak_rss_kb")]
        if peaks:
            memory.append(f"{name} {max(peaks) / 2**20:.2f}")
        for cell in cells:
            times = rows.seconds(name, job, cell)
            if len(times) > 1:
                apart.append(((max(times) - min(times)) / statistics.median(times), f"{name}, {cell}"))
        answer = rows.answer(name, job.shape, job.dtype)
        if answer and "difference" in answer:
            sign = "" if answer["match"] else " **≠**"
            answers.append(f"{name} {answer['difference']:.1e}{sign}")
            bound = answer["bound"]
        elif answer:
            answers.append(f"{name} not known ({answer['failed']})")
    out = [""]
    if memory:
        out.append(f"Peak resident GiB: {', '.join(memory)}.")
    if any(not text.endswith(")") for text in answers):
        out.append(f"Logits, relative difference to ours in f32 (bound {bound:g}): {', '.join(answers)}.")
    elif answers:
        out.append(f"Logits: {', '.join(answers)}.")
    if apart:
        out.append("Rounds furthest apart: {1} ({0:.0%}).".format(*max(apart)))
    return out
