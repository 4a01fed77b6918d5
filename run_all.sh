#!/usr/bin/env bash
# From images to a trained model and its report, in the virtual environment .venv.
#
#   ./run_all.sh         preprocess, verify and trainer, on kaggle/ if it exists, otherwise on synthetic galaxies
#   ./run_all.sh test    the test suite
#
# Settings, as environment variables:
#   SRC      folder or zip with images and votes   (kaggle/ if it exists, otherwise synthetic galaxies in demo/)
#   SIZE     side of the stored images in pixels
#   EPOCHS   passes over the training galaxies
#   WEIGHTS  imagenet, none, or a file with weights of VGG16's backbone
#   OUT      folder for data/ and runs/             (the project folder)
#   PYTHON   interpreter that makes .venv           (the first of python3, python3.13, 3.12, 3.11 that is 3.11 to 3.13)
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
venv="$here/.venv"

say() { printf '\n== %s\n' "$*"; }
fail() { printf 'error: %s\n' "$*" >&2; exit 1; }

find_python() {
  local candidate
  for candidate in ${PYTHON:-python3 python3.13 python3.12 python3.11}; do
    if "$candidate" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null; then
      printf '%s\n' "$candidate"
      return
    fi
  done
  fail "no Python 3.11 to 3.13 found (tried ${PYTHON:-python3, python3.13, python3.12, python3.11}): install one, or name it with PYTHON=..."
}

has_gpu() { command -v nvidia-smi >/dev/null 2>&1 && nvidia-smi -L 2>/dev/null | grep -q GPU; }

# prepare EXTRA...: installs only if setup.py, pyproject.toml or the extras have changed.
prepare() {
  local extras wanted stamp="$venv/installed.txt"
  if has_gpu; then set -- "$@" gpu; fi
  extras=$(IFS=,; printf '%s' "$*")
  wanted=$(cat "$here/setup.py" "$here/pyproject.toml" | cksum)
  # An earlier install with the same files and all of these extras is sufficient.
  if [[ -f $stamp && $(head -n 1 "$stamp") == "$wanted" ]]; then
    local missing="" extra
    for extra in "$@"; do grep -qx "$extra" "$stamp" || missing=yes; done
    [[ -z $missing ]] && return
  fi
  say "installing into .venv (several minutes, the first time only)"
  local python
  "$venv/bin/python" -m pip --version >/dev/null 2>&1 || { python=$(find_python); "$python" -m venv --clear "$venv" || fail "cannot make .venv: on Debian, apt-get install python3-venv"; }
  "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --editable "$here${extras:+[$extras]}" ||
    fail "installation failed: check the connection to the package index and run the same command again"
  { printf '%s\n' "$wanted"; [[ ! -f $stamp ]] || tail -n +2 "$stamp"; printf '%s\n' "$@"; } > "$stamp.new"
  mv "$stamp.new" "$stamp"
}

run_tests() {
  prepare test
  say "tests"
  cd "$here"
  # Two processes, a file at a time, because tests in a file share slow fixtures; slow files run first (tests/conftest.py).
  "$venv/bin/python" -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder "$@"
}

run_pipeline() {
  [[ -z ${SRC:-} || -e $SRC ]] || fail "SRC=$SRC: no such folder or zip: give one with the images and the table of votes"
  prepare
  local out="${OUT:-$here}" src="${SRC:-}" size="${SIZE:-}" epochs="${EPOCHS:-}" weights="${WEIGHTS:-}"
  local given="${SIZE:-}${EPOCHS:-}"
  local -a more=()
  if [[ -z $src && -d $here/kaggle ]]; then src="$here/kaggle"; fi
  if [[ -z $src ]]; then
    src="$out/demo" size="${size:-32}" epochs="${epochs:-16}" weights="${weights:-none}"
    if [[ -d $src ]]; then
      say "using the synthetic galaxies in $src"
    else
      say "no kaggle/ folder in $here and no SRC=...: drawing synthetic galaxies"
      "$venv/bin/preprocess" demo --out "$src"
    fi
  elif has_gpu; then
    size="${size:-212}" epochs="${epochs:-30}" weights="${weights:-imagenet}" more=(--require_gpu)
    say "GPU found: $size x $size pixels, $epochs epochs (set SIZE= and EPOCHS= to change them)"
  else
    size="${size:-64}" epochs="${epochs:-4}" weights="${weights:-imagenet}"
    say "no GPU found${given:+, so this may take long}: $size x $size pixels, epochs: $epochs (set SIZE= and EPOCHS= to change them; the article uses 212 and 50)"
    [[ -n $given ]] || say "this is a small trial"
  fi
  # Random weights need a higher rate than a pretrained backbone; this one was chosen on the synthetic galaxies.
  if [[ $weights == none ]]; then more+=(--learning_rate 3e-4 --warmup_steps 40); fi
  # One dataset per source and size, one run per setting, so that different settings never share a folder.
  local name
  name=$(basename "$(realpath "$src")" .zip)
  local data="$out/data/$name-$size/galaxy_zoo/1.0.0" run="$out/runs/$name-$size-$epochs-$(basename "$weights" | cut -d. -f1)"

  say "preprocess: $src -> TFRecord shards of $size x $size crops"
  "$venv/bin/preprocess" --src "$src" --out "$data" --size "$size"
  "$venv/bin/preprocess" verify --tfrecords "$data" --src "$src"

  say "trainer: $epochs epochs, weights $weights"
  "$venv/bin/trainer" --tfrecords "$data" --out "$run" --epochs "$epochs" --weights "$weights" \
    ${more[@]+"${more[@]}"} || {
    local code=$?
    # Only if the folder has the marker of a run that trainer wrote: no other folder may be removed.
    [[ $code != 1 || ! -e $run/.galaxy-zoo/marker.json ]] || printf 'Instead of --overwrite, if it is suggested above: remove %s and run the same command again.\n' "$run" >&2
    exit "$code"
  }
}

case "${1:-}" in
  "") run_pipeline ;;
  test) shift; run_tests "$@" ;;
  *) printf 'usage: ./run_all.sh [test]\n' >&2; exit 2 ;;
esac
