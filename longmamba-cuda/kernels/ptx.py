#!/usr/bin/env python3
"""Makes the PTX in ../ptx from the kernels in this folder, and checks it. A user of the crate needs none of this.

    pip install nvidia-cuda-nvrtc-cu12==12.0.140 nvidia-cuda-nvcc-cu12==12.9.86
    python ptx.py build [NAME...]  write ../ptx/compute_*/NAME.ptx (all kernels without NAME)
    python ptx.py check            is that PTX what the sources give, byte for byte?
    python ptx.py assemble         does it assemble without spills for every target, within the table
                                   ../ptx/resources.tsv?
    python ptx.py measure          write that table anew
"""

import ctypes
import importlib.util
import os
import re
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HERE = Path(__file__).resolve().parent
PTX = HERE.parent / "ptx"
TABLE = PTX / "resources.tsv"

# PTX target -> the processors that run it. 7.5 has no cp.async and no bf16 in its tensor cores.
TARGETS = {
    "compute_75": ["sm_75"],
    "compute_80": ["sm_80", "sm_86", "sm_89", "sm_90", "sm_100", "sm_120"],
}


def package(name):
    """The folder that a wheel of NVIDIA's put its files in."""
    found = importlib.util.find_spec(f"nvidia.{name}")
    if found is None:
        sys.exit(f"{name} is not installed; see the top of {Path(__file__).name}")
    return Path(list(found.submodule_search_locations)[0])


class Compiler:
    def __init__(self):
        folder = package("cuda_nvrtc") / "lib"
        # The compiler looks for this one by name, and would not find it.
        for builtins in folder.glob("libnvrtc-builtins.so*"):
            ctypes.CDLL(str(builtins), mode=ctypes.RTLD_GLOBAL)
        self.library = ctypes.CDLL(str(folder / "libnvrtc.so.12"))

    def compile(self, source, target):
        library, program = self.library, ctypes.c_void_p()
        name, text = source.name.encode(), source.read_bytes()
        library.nvrtcCreateProgram(ctypes.byref(program), text, name, 0, None, None)
        options = [f"--gpu-architecture={target}", f"--include-path={HERE}"]
        encoded = (ctypes.c_char_p * len(options))(*(option.encode() for option in options))
        failed = library.nvrtcCompileProgram(program, len(options), encoded)
        if failed:
            sys.exit(f"{source.name} for {target}:\n{self.text(program, 'ProgramLog')}")
        # Unused constants of a built-in header, whose names have the number of this process in them.
        lines = self.text(program, "PTX").splitlines(keepends=True)
        return "".join(line for line in lines if "nv6target" not in line)

    def text(self, program, what):
        size = ctypes.c_size_t()
        getattr(self.library, f"nvrtcGet{what}Size")(program, ctypes.byref(size))
        buffer = ctypes.create_string_buffer(size.value)
        getattr(self.library, f"nvrtcGet{what}")(program, buffer)
        # Without the NUL at the end.
        return buffer.value.decode()


def sources(names=()):
    return [source for source in sorted(HERE.glob("*.cu")) if not names or source.stem in names]


def build(names=()):
    compiler = Compiler()
    for source in sources(names):
        for target in TARGETS:
            out = PTX / target / f"{source.stem}.ptx"
            out.parent.mkdir(parents=True, exist_ok=True)
            out.write_text(compiler.compile(source, target))
            print(f"{out.relative_to(PTX.parent)}  {out.stat().st_size >> 10} KiB")


def check():
    compiler = Compiler()
    stale = []
    expected = set()
    for source in sources():
        for target in TARGETS:
            out = PTX / target / f"{source.stem}.ptx"
            expected.add(out)
            if not out.exists() or out.read_text() != compiler.compile(source, target):
                stale.append(out.relative_to(PTX.parent))
    stale += [p.relative_to(PTX.parent) for p in PTX.glob("*/*.ptx") if p not in expected]
    if stale:
        sys.exit("not what the sources give; run ptx.py build: " + ", ".join(map(str, stale)))
    print(f"PTX is fresh: {len(expected)} files")


def resources():
    """(kernel, processor) -> (registers, bytes of static shared memory); ends on a spill."""
    work = [
        (file, processor)
        for target, processors in TARGETS.items()
        for file in sorted((PTX / target).glob("*.ptx"))
        for processor in processors
    ]
    found = {}
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for kernels in pool.map(lambda job: assembled(*job), work):
            found |= kernels
    return found


def assembled(file, processor):
    """What of it is one file's, for one processor."""
    ptxas = package("cuda_nvcc") / "bin" / "ptxas"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as out:
        command = [ptxas, f"-arch={processor}", "-v", "--warn-on-spills", "-Werror", file, "-o", out.name]
        ran = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if ran.returncode:
        sys.exit(f"{file.name} for {processor}:\n{ran.stdout}")
    found = {}
    for kernel, registers, rest in re.findall(r"entry function '(\w+)'.*?Used (\d+) registers([^\n]*)", ran.stdout, re.S):
        shared = re.search(r"(\d+) bytes smem", rest)
        found[kernel, processor] = (int(registers), int(shared.group(1)) if shared else 0)
    return found


def assemble():
    allowed = {}
    for line in TABLE.read_text().splitlines()[1:]:
        kernel, processor, registers, shared = line.split("\t")
        allowed[kernel, processor] = (int(registers), int(shared))
    found = resources()
    wrong = [
        f"{kernel} on {processor}: {found.get((kernel, processor))}, the table has {allowed.get((kernel, processor))}"
        for kernel, processor in sorted(found.keys() | allowed.keys())
        if (kernel, processor) not in allowed
        or (kernel, processor) not in found
        or any(have > most for have, most in zip(found[kernel, processor], allowed[kernel, processor]))
    ]
    if wrong:
        sys.exit("registers and shared memory beyond the table (ptx.py measure writes it anew):\n" + "\n".join(wrong))
    print(f"{len(found)} kernels assemble without spills, within the table")


def measure():
    lines = ["kernel\tprocessor\tregisters\tstatic_shared_bytes"]
    for (kernel, processor), (registers, shared) in sorted(resources().items()):
        lines.append(f"{kernel}\t{processor}\t{registers}\t{shared}")
    TABLE.write_text("\n".join(lines) + "\n")
    print(f"{len(lines) - 1} lines in {TABLE.name}")


if __name__ == "__main__":
    commands = {"build": build, "check": check, "assemble": assemble, "measure": measure}
    match sys.argv[1:]:
        case [command, *names] if command in commands and (not names or command == "build"):
            commands[command](*([names] if command == "build" else []))
        case _:
            sys.exit(__doc__)
