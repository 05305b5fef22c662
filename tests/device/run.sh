#!/usr/bin/env bash
# Measure training on one GPU, beside PyTorch on the same GPU, within ten minutes, without a network and without installing
# anything. The Python that holds jax and PyTorch does it, from this checkout:
#
#   tests/device/run.sh                       # BERT-base and BERT-large; what does not fit nine minutes is skipped by name
#   tests/device/run.sh --seconds=240         # the most important of it, in four minutes
#   tests/device/run.sh --only='large|512'    # only the measurements of these names
#   tests/device/run.sh --preset=tiny         # a tiny model: to try the script, on a CPU too
#
# PYTHON names another interpreter than python3, and OUT the folder for device.json and device.md (a new temporary one without
# it). Both files are written again after every measurement, so an interrupted call leaves what it had.
set -euo pipefail

cd "$(dirname "$0")/../.."
python=${PYTHON:-python3}
out=${OUT:-$(mktemp -d)}
mkdir -p "$out"

missing=$("$python" -c 'import sys
from importlib.util import find_spec
print(*[name for name in sys.argv[1:] if find_spec(name) is None])' \
    absl etils flax huggingface_hub jax jaxtyping numpy optax rich safetensors tokenizers transformers)
if [ -n "$missing" ]; then
    echo "error: $python lacks: $missing; name another interpreter by PYTHON, or add a folder that holds them to PYTHONPATH" >&2
    exit 2
fi

export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}" HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false
# jax and PyTorch take the device in turns, so each may have nearly all of its memory.
export XLA_PYTHON_CLIENT_MEM_FRACTION=${XLA_PYTHON_CLIENT_MEM_FRACTION:-0.9}
echo "figures: $out/device.json, table: $out/device.md" >&2
exec "$python" launch/speed.py --device --json="$out/device.json" "$@"
