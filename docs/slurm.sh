#!/usr/bin/env bash
# A Ray cluster and a run within one SLURM allocation:  sbatch docs/slurm.sh STUDY [flags of dual-bench run]
#SBATCH --job-name=dual-bench
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=16
#SBATCH --mem=64G
#SBATCH --time=08:00:00
#SBATCH --signal=B:TERM@120
# For GPUs add:  #SBATCH --gpus-per-node=4   and the flag --gpu-share 0.25
set -euo pipefail
[ "$#" -gt 0 ] || { echo "usage: sbatch docs/slurm.sh STUDY [flags of dual-bench run]" >&2; exit 2; }

head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
address="$(srun --nodes=1 --ntasks=1 --nodelist="$head" hostname --ip-address | cut -d ' ' -f 1):6379"

# a node of the cluster each, as long as the job lasts; the others come when the head is up
srun --nodes=1 --ntasks=1 --nodelist="$head" --overlap \
  ray start --head --port=6379 --num-cpus="$SLURM_CPUS_PER_TASK" --disable-usage-stats --block &
if [ "$SLURM_JOB_NUM_NODES" -gt 1 ]; then
  sleep 20
  srun --nodes="$((SLURM_JOB_NUM_NODES - 1))" --ntasks="$((SLURM_JOB_NUM_NODES - 1))" --exclude="$head" --overlap \
    ray start --address="$address" --num-cpus="$SLURM_CPUS_PER_TASK" --disable-usage-stats --block &
fi
sleep 30

# SLURM tells this script two minutes before the end: what is finished is stored, and the same job goes on
srun --nodes=1 --ntasks=1 --nodelist="$head" --overlap dual-bench run "$@" --engine ray --address "$address" &
run=$!
trap 'kill -TERM "$run"' TERM
wait "$run" || { code=$?; wait "$run" || code=$?; exit "$code"; }
