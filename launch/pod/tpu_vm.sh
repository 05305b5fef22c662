#!/usr/bin/env bash
# Run a command of launch/ on every worker of a Cloud TPU VM:
#
#   TPU=my-v5e-64 ZONE=us-west4-a launch/pod/tpu_vm.sh train --config=configs/bert_nc.py --workdir=gs://BUCKET/run
#
# TPU and ZONE name the VM (`gcloud compute tpus tpu-vm create` makes one). The workers share no disk, so give model, text
# and workdir as gs://… or by Hub name. The checkout that you stand in is copied to each worker's ~/ncfair_jax and installed
# there, which takes a minute the first time. The same command again goes on from the last checkpoint.
# Exit code: that of the workers; 75 = one of them was lost, run it again.
set -euo pipefail

: "${TPU:?set TPU to the name of the TPU VM}" "${ZONE:?set ZONE to its zone}"
command=${1:?name a command: train, sweep, evaluate or measure}
shift

package=$(mktemp --suffix=.tar.gz)
trap 'rm -f "$package"' EXIT
git archive --format=tar.gz --output="$package" HEAD
gcloud compute tpus tpu-vm scp "$package" "$TPU:ncfair_jax.tar.gz" --zone="$ZONE" --worker=all

# shellcheck disable=SC2016 # the workers' shell expands it
setup='set -e; mkdir -p ncfair_jax; tar -xzf ncfair_jax.tar.gz -C ncfair_jax; cd ncfair_jax
[ -d .venv ] || python3 -m venv .venv
.venv/bin/pip install --quiet --upgrade -e ".[gcs]" "jax[tpu]"
exec .venv/bin/python'
gcloud compute tpus tpu-vm ssh "$TPU" --zone="$ZONE" --worker=all \
    --command="$setup launch/$command.py --coordinator=auto $(printf '%q ' "$@")"
