#!/bin/bash
# sbatch docs/examples/slurm.sh [overrides...]
# Two machines of eight GPUs. Preempted, or on a node that fails, it is queued again and goes on from its last checkpoint.
#SBATCH --job-name=strata
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --signal=TERM@300
#SBATCH --output=%x-%j.log
set -euo pipefail

run="${STRATA_RUN:-runs/$SLURM_JOB_NAME-$SLURM_JOB_ID}" # on a file system that all machines share
head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)

if [ -f "$run/config.yaml" ]; then
  arguments=("resume=$run" "$@")
else
  arguments=("sharding=zero3" "model=l" "train.batch=64" "train.random_steps=8192" "hydra.run.dir=$run" "$@")
fi

export OMP_NUM_THREADS=$((SLURM_CPUS_PER_TASK / 8))
srun torchrun \
  --nnodes "$SLURM_NNODES" \
  --nproc_per_node 8 \
  --shutdown-timeout 280 \
  --rdzv_id "$SLURM_JOB_ID" \
  --rdzv_backend c10d \
  --rdzv_endpoint "$head:29500" \
  run.py "${arguments[@]}"
