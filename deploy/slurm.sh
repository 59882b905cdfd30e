#!/bin/bash
# Ray on SLURM: a head on the first node of the allocation, workers on all nodes, and the search beside the head.
#
#   cd /shared/project && sbatch /opt/pipeline/deploy/slurm.sh 500          # 500 trials
#
# The project's folder lies on storage that all nodes share, or `tune.checkpoints` is an object store. When the time is
# over or the job is preempted, submit it again: the study resumes. SLURM sends SIGTERM to `ray start`, which drains its
# node; the owner gets SIGTERM 60 seconds before and ends after the current epochs.
#SBATCH --job-name=pipeline
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --time=12:00:00
#SBATCH --signal=B:TERM@60
#SBATCH --requeue
#SBATCH --output=ray-%j.log
set -euo pipefail
trials=${1:-50}
export RAY_USAGE_STATS_ENABLED=0
nodes=($(scontrol show hostnames "$SLURM_JOB_NODELIST"))
port=${RAY_PORT:-$((20000 + SLURM_JOB_ID % 20000))}
# Not --ip-address: by /etc/hosts that is often a loopback address, which the other nodes can't reach.
ip=$(srun --nodes=1 --ntasks=1 -w "${nodes[0]}" hostname --all-ip-addresses | awk '{print $1}')
address=$ip:$port
gpus=${SLURM_GPUS_ON_NODE:+--num-gpus=$SLURM_GPUS_ON_NODE}

# --block: the node lives as long as its job step.
srun --nodes=1 --ntasks=1 --overlap -w "${nodes[0]}" \
    ray start --head --node-ip-address="$ip" --port="$port" --num-cpus="$SLURM_CPUS_PER_TASK" $gpus --include-dashboard=false --block &
until ray status --address "$address" > /dev/null 2>&1; do sleep 2; done
if [ "${#nodes[@]}" -gt 1 ]; then
    rest=$((${#nodes[@]} - 1))
    srun --nodes="$rest" --ntasks="$rest" --overlap --exclude="${nodes[0]}" \
        ray start --address="$address" --num-cpus="$SLURM_CPUS_PER_TASK" $gpus --block &
fi

python -m pipeline.tune --trials "$trials" --engine ray --address "$address" &
owner=$!
trap 'kill -TERM $owner' TERM
# A trap ends the first wait; the second one waits for the owner's own ending.
wait $owner || wait $owner
