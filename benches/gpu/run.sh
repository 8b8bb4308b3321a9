#!/usr/bin/env bash
# Everything that is measured on a GPU, in one command:
#
#     benches/gpu/run.sh [OUT]
#
# OUT (default: benches/record) gets DATE-NAME.md, the record, and beside it the logs and lines of JSON.
# Nothing is fetched. README.md beside this file has the variables.
set -uo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
out=${1:-$root/benches/record}
parts=${PARTS:-device tests sanitizer kernels models rivals}
limit=${LIMIT:-1500}
quick=${QUICK:+--quick}
models=${MODELS:-mamba-130m mamba-1.4b mamba2-1.3b zamba2-1.2b mamba-2.8b}
mkdir -p "$out"
out=$(cd "$out" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work" ${linked:+"$linked"}' EXIT
name=$(nvidia-smi --query-gpu=name --format=csv,noheader 2>/dev/null | head -n 1)
slug=$(printf '%s' "${name:-no-gpu}" | tr '[:upper:] ' '[:lower:]-' | tr -cd 'a-z0-9-')
record=$out/$(date +%F)-$slug.md
bad=0

note() { printf '%s\n' "$@" | tee -a "$record"; }
wanted() { [[ " $parts " == *" $1 "* ]]; }
# What was not run is said in the record, and the command does not succeed.
not_run() { note "**Not run: $1.**" ""; bad=1; }
failed() { note "**Failed: $1.**" ""; bad=1; }

# heading "Title" part: begins a section; false where the part was not asked for.
heading() {
  note "## $1" ""
  wanted "$2" || { not_run "not asked for (PARTS=$parts)"; return 1; }
}

# measured LOG COMMAND...: runs it, its output into the log; says how it ended.
measured() {
  local log=$1 code=0; shift
  note "\`$(printf '%s ' "$@" | sed "s#$BIN/##g; s#$out/##g; s#$root/##g; s#$work#FOLDER#g; s# \$##")\`" ""
  timeout "$limit" "$@" >"$log" 2>&1 || code=$?
  case $code in
    0) ;;
    3) not_run "parts of it, as the end of its output says" ;;
    124) failed "stopped after $limit s, incomplete" ;;
    *) failed "exit status $code" ;;
  esac
  return $code
}

# The last lines of a log, where a command failed.
tail_of() { note '```'; tail -n 25 "$1" | tee -a "$record"; note '```' ""; }

: >"$record"
note "# $(date +%F), ${name:-no GPU found}" ""
commit=$(git -C "$root" rev-parse --short HEAD 2>/dev/null || cat "${BIN:-$root}/COMMIT" 2>/dev/null)
note "Commit ${commit:-unknown}. Written by \`benches/gpu/run.sh\`, whose README says what the columns mean." ""
[[ -z $quick ]] || note "**QUICK is set: tiny sizes, these are no measurements.**" ""

# --- What to run: built here, or brought along.

build=cargo
if [[ -n ${BIN:-} ]]; then
  build=brought
  BIN=$(cd "$BIN" && pwd) || exit 2
  # Tests look for their fixtures where they were built.
  built_at=$(cat "$BIN/SOURCE" 2>/dev/null)
  if [[ -n $built_at && $built_at != "$root" && ! -e $built_at ]]; then
    mkdir -p "$(dirname "$built_at")" && ln -s "$root" "$built_at" && linked=$built_at
  fi
elif ! command -v cargo >/dev/null; then
  build=none
fi
if [[ $build == cargo ]]; then
  note "Built here: $(rustc --version)." ""
  BIN=$work/bin
  if ! bash "$root/benches/gpu/pack.sh" "$BIN" >"$out/build.log" 2>&1; then
    failed "the build"
    tail_of "$out/build.log"
    build=none
  fi
elif [[ $build == brought ]]; then
  note "Programs brought along, built with $(cat "$BIN/RUSTC" 2>/dev/null || echo 'an unknown compiler')." ""
fi
BIN=${BIN:-$work/none}
have() { [[ $build != none ]] && ls "$BIN"/$1 >/dev/null 2>&1; }
missing="there is neither a toolchain nor a folder of programs (BIN)"

# --- Device

if heading Device device; then
  if command -v nvidia-smi >/dev/null; then
    note '```'
    nvidia-smi --query-gpu=name,driver_version,memory.total,clocks.max.sm,clocks.max.mem,power.limit,ecc.mode.current \
      --format=csv 2>&1 | tee -a "$record"
    note '```' ""
  else
    not_run "nvidia-smi is not installed"
  fi
fi

# --- Tests

# test_on_gpu PROGRAM LOG: runs it, and insists that it was a GPU.
test_on_gpu() {
  local code=0
  # In the crate's own folder, as cargo does.
  (cd "$root/$(cat "$1.crate")" && timeout "$limit" "$1" --nocapture --test-threads=1) >"$2" 2>&1 || code=$?
  local result; result=$(grep -a '^test result' "$2" | tail -n 1)
  if [[ $code != 0 ]]; then result="FAILED ($code): ${result:-no result}"; bad=1
  elif grep -aq 'on the emulator' "$2"; then result="NOT ON A GPU, but on the emulator"; bad=1
  elif ! grep -aq 'on a GPU' "$2"; then result="${result#test result: } (does not say on what it ran)"
  fi
  note "| $(basename "$1" .test) | ${result#test result: } |"
}

if heading "Tests" tests; then
  if have '*.test'; then
    [[ -z ${linked:-} ]] || note "The path that the tests were built at is a link to this tree, for their fixtures." ""
    note "Each test program alone, \`PROGRAM --nocapture --test-threads=1\`." "" "| program | result |" "|---|---|"
    : >"$out/tests.log"
    for program in "$BIN"/*.test; do
      test_on_gpu "$program" "$work/test.log"
      { echo "== $program"; cat "$work/test.log"; } >>"$out/tests.log"
    done
    note ""
  else
    not_run "$missing"
  fi
fi

# --- Sanitizer

if heading "compute-sanitizer" sanitizer; then
  if ! command -v compute-sanitizer >/dev/null; then
    not_run "compute-sanitizer is not installed"
  elif ! have 'cuda-*.test'; then
    not_run "$missing"
  else
    note "Over the tests of the kernels, \`compute-sanitizer --tool TOOL --error-exitcode 86 PROGRAM\`." ""
    note "| program | tool | result |" "|---|---|---|"
    : >"$out/sanitizer.log"
    for program in "$BIN"/cuda-*.test; do
      for tool in memcheck racecheck; do
        code=0
        (cd "$root/$(cat "$program.crate")" && timeout "${SANITIZER_LIMIT:-300}" compute-sanitizer --tool $tool \
          --error-exitcode 86 "$program" --nocapture --test-threads=1) >"$work/sanitizer.log" 2>&1 || code=$?
        summary=$(grep -a -E 'ERROR SUMMARY|RACECHECK SUMMARY' "$work/sanitizer.log" | tail -n 1 | tr -d '=')
        # Without a summary the tool did not look, whatever the program said.
        case $code in
          0) [[ -n $summary ]] || { summary="NO SUMMARY"; bad=1; } ;;
          124) summary="NOT FINISHED after ${SANITIZER_LIMIT:-300} s"; bad=1 ;;
          *) summary="FAILED ($code): ${summary:-no summary}"; bad=1 ;;
        esac
        note "| $(basename "$program" .test) | $tool | $summary |"
        { echo "== $tool $program"; cat "$work/sanitizer.log"; } >>"$out/sanitizer.log"
      done
    done
    note ""
  fi
fi

# --- Kernels, models, rivals

if heading "Kernels" kernels; then
  if have gpu; then
    # Where it is installed, cuBLASLt is timed beside our own products.
    blas=$(ldconfig -p 2>/dev/null | grep -Eq 'libcublasLt\.so\.1[23] ' && echo --cublaslt)
    measured "$work/kernels.md" "$BIN/gpu" $quick $blas --json "$out/kernels.jsonl" ${GPU_ARGS:-}
    tee -a "$record" <"$work/kernels.md"
    note ""
  else
    not_run "$missing"
  fi
fi

if heading "Whole models, random weights in bf16" models; then
  if have full_size; then
    prompts="--prompt 512 --prompt 2048 --steps 128 --repeats 5"
    [[ -z $quick ]] || { prompts="--prompt 16 --steps 2"; models=tiny; }
    measured "$work/models.md" "$BIN/full_size" "$work/checkpoints" $models --device cuda $prompts --chunk 2048 \
      --filter --json "$out/models.jsonl"
    tee -a "$record" <"$work/models.md"
    rm -rf "$work/checkpoints"
    note ""
  else
    not_run "$missing"
  fi
fi

if heading "Rivals, in the same run" rivals; then
  if command -v python3 >/dev/null; then
    measured "$work/rivals.md" python3 "$root/benches/gpu/rivals.py" $quick --json "$out/rivals.jsonl"
    tee -a "$record" <"$work/rivals.md"
    note ""
  else
    not_run "python3 is not installed"
  fi
fi

if [[ $bad == 0 ]]; then
  note "Everything ran."
else
  note "**Not everything ran or passed; see above.**"
fi
echo "record: $record"
exit $bad
