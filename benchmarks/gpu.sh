#!/usr/bin/env bash
# Measure this machine's GPU in under ten minutes: renderer, fit, forward passes, training steps, all notebooks at smoke.
#     benchmarks/gpu.sh [FILE]
# It appends to FILE (benchmarks/RESULTS.md) under the name of the GPU. Without a GPU it says so and stops.
#
# What the renderer must reach: 20,000 images a second, forward, at 112 pixels in a batch of 64 (0.05 ms an image). The
# pure-torch rasteriser tests every triangle against a box of pixels. If it does not reach this, a rasteriser in
# numba.cuda with one thread for each triangle and an atomic depth test replaces it, as imaging's numba twin does on the CPU.
set -euo pipefail
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-.venv/bin/python}
file=${1:-benchmarks/RESULTS.md}

device=$("$PYTHON" -c 'import torch; print(torch.cuda.get_device_name() if torch.cuda.is_available() else "")')
if [ -z "$device" ]; then
    echo "No GPU: torch sees none on this machine. Nothing was measured."
    exit 3
fi

out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT

# measure TITLE SECONDS COMMAND...: one section of the page. What fails or takes too long is said there.
measure() {
    local title=$1 limit=$2 start=$SECONDS status=0
    shift 2
    echo "$title ..." >&2
    timeout "$limit" "$@" >"$out/log" 2>&1 || status=$?
    echo
    echo "### $title (\`${*##*/.venv/bin/}\`)"
    echo
    [ "$status" = 0 ] || echo "It ended with exit code $status after $((SECONDS - start)) s (limit $limit s)."
    echo '```'
    tail -n 40 "$out/log"
    echo '```'
    echo "$((SECONDS - start)) s in all."
}

{
    echo
    echo "## On a GPU: $device (\`benchmarks/gpu.sh\`)"
    echo
    echo "$(date '+%d %B %Y'), $(nproc) cores, commit $(git rev-parse --short HEAD 2>/dev/null || echo unknown)."
    measure "Renderer" 90 "$PYTHON" benchmarks/render.py --repeats 3
    measure "Fitting" 60 "$PYTHON" benchmarks/fitting.py --share 0.2 --device cuda
    measure "Forward passes and training steps" 90 "$PYTHON" benchmarks/liu18_network.py --device cuda --seconds 0.5
    measure "Training steps of the teacher" 60 "$PYTHON" benchmarks/teacher.py --device cuda
    measure "All notebooks at smoke" 270 make notebooks PROFILE=smoke DEVICE=cuda RUN_FOLDER="$out/smoke"
} >"$out/page"
cat "$out/page" >>"$file"
echo "Appended to $file in $SECONDS s."
