#!/usr/bin/env bash
# Builds the tests of everything that runs on a GPU and the programs that measure it, and collects them in a
# folder that can be carried to a machine without a toolchain:
#
#     benches/gpu/pack.sh FOLDER        here
#     BIN=FOLDER benches/gpu/run.sh     there, in the same tree
set -euo pipefail

folder=${1:?give the folder that programs are collected in}
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
mkdir -p "$folder"
folder=$(cd "$folder" && pwd)
cd "$root"

# The programs of a build, as cargo lists them: kind, name, path.
programs() {
  python3 -c '
import json, sys
for line in sys.stdin:
    message = json.loads(line)
    if message.get("reason") == "compiler-artifact" and message.get("executable"):
        target = message["target"]
        print(target["kind"][0], target["name"], message["executable"])
'
}

# Tests: PREFIX-NAME.test, and beside it the crate that it is of. A test checks its numbers, so it is built as
# for every other machine, assertions and all.
collect() {
  local crate=$1 prefix=$2; shift 2
  cargo test --no-run --message-format=json -p "$crate" "$@" | programs | while read -r kind name path; do
    [[ $kind == test || $kind == lib ]] || continue
    # It is for the emulator only, and would look green here.
    [[ $name != mutations ]] || continue
    cp "$path" "$folder/$prefix-$name.test"
    strip -g "$folder/$prefix-$name.test" 2>/dev/null || true
    echo "$crate" >"$folder/$prefix-$name.test.crate"
  done
}

collect longmamba-cuda cuda --tests
collect longmamba-model model --features cuda --test cuda
cargo build --release --message-format=json -p longmamba-benches --features cuda --bins | programs |
  while read -r _ name path; do cp "$path" "$folder/$name"; done

# Where there is no GPU the tests fall back to the emulator, and say so.
emulator=$(find "${CARGO_TARGET_DIR:-target}/debug" -maxdepth 2 -name 'liblongmamba_cuda_emulator.so' | head -n 1)
[[ -z $emulator ]] || cp "$emulator" "$folder/"

echo "$root" >"$folder/SOURCE"
rustc --version >"$folder/RUSTC"
git rev-parse --short HEAD >"$folder/COMMIT" 2>/dev/null || true
du -sh "$folder" | cut -f 1
