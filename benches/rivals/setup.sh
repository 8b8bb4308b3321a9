#!/usr/bin/env bash
# Installs and builds what compare.py runs: setup.sh [FOLDER [PART...]]
#
# FOLDER is target/rivals where it is left out. PARTs are python, ours, llama, transformers, candle and mamba-rs;
# all where none is named, and python goes first always. What is there already is not made again. A part that
# fails is named at the end, and the others are still of use. JOBS=N builds with N jobs.
set -u
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
mkdir -p "${1:-$root/target/rivals}"
folder=$(cd "${1:-$root/target/rivals}" && pwd)
shift || true
[ $# -gt 0 ] || set -- ours llama transformers candle mamba-rs
jobs=${JOBS:-$(nproc)}
export CARGO_BUILD_JOBS=$jobs
pip="$folder/venv/bin/python -m pip --disable-pip-version-check"
llama=llama_cpp_python-0.3.36

part_python() {
    [ -x "$folder/venv/bin/python" ] || python3 -m venv "$folder/venv" || return
    $pip install -q numpy gguf==0.19.0
}

part_ours() {
    cargo build --release --manifest-path "$root/Cargo.toml" -p longmamba-benches --bin speed \
        --target-dir "$folder/cargo"
}

# The source distribution of llama.cpp's Python binding holds llama.cpp.
part_llama() {
    local source="$folder/src/$llama/vendor/llama.cpp" build="$folder/llama-build"
    $pip install -q cmake ninja || return
    export PATH="$folder/venv/bin:$PATH"
    if [ ! -d "$source" ]; then
        $pip download -q --no-deps --no-binary llama-cpp-python -d "$folder/src" llama-cpp-python==0.3.36 || return
        tar xzf "$folder/src/$llama.tar.gz" -C "$folder/src" || return
    fi
    cmake -S "$source" -B "$build" -G Ninja -DCMAKE_BUILD_TYPE=Release -DGGML_NATIVE=ON -DLLAMA_CURL=OFF \
        -DLLAMA_OPENSSL=OFF -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_BUILD_SERVER=OFF \
        -DLLAMA_BUILD_UI=OFF >"$folder/llama-cmake.log" || return
    cmake --build "$build" -j "$jobs" --target llama-bench || return
    c++ -O2 -std=c++17 "$here/llama_logits.cpp" -I "$source/include" -I "$source/ggml/include" -L "$build/bin" \
        -lllama -lggml -lggml-base -Wl,-rpath,"$build/bin" -o "$build/bin/llama-logits"
}

part_transformers() {
    $pip install -q torch==2.15.0 transformers==5.24.0
}

# Built for this processor, as candle recommends; ours picks its instructions when it runs.
rival() {
    RUSTFLAGS=-Ctarget-cpu=native cargo build --release --manifest-path "$here/rust/Cargo.toml" -p "$1" --locked \
        --target-dir "$folder/cargo-native" --ignore-rust-version
}

part_candle() { rival rival-candle; }

part_mamba-rs() { rival rival-mamba-rs; }

failed=()
for part in python "$@"; do
    echo "== $part"
    "part_$part" || failed+=("$part")
done
if [ ${#failed[@]} -gt 0 ]; then
    echo "failed: ${failed[*]}" >&2
    exit 1
fi
echo "all there: $folder/venv/bin/python $here/compare.py --folder $folder"
