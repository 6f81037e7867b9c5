"""Run jobs on a Ray of this machine that claims two GPUs, and print what each job saw."""

from __future__ import annotations

import json
import os
import time

import ray
from joblib import Parallel, delayed

from seqvae import InputError
from seqvae.compute.backends import chosen, workers_on_gpus


def seen(_: int) -> tuple[str | None, float, float]:
    began = time.time()
    time.sleep(0.3)
    return os.environ.get("CUDA_VISIBLE_DEVICES"), began, time.time()


if __name__ == "__main__":
    ray.init(num_cpus=4, num_gpus=2, include_dashboard=False, log_to_driver=False)
    with chosen("ray", {"num_gpus": 1}):
        parallel = Parallel(n_jobs=workers_on_gpus(-1, 1.0), batch_size=1)
        found = parallel(delayed(seen)(index) for index in range(6))
    try:
        workers_on_gpus(3, 1.0)
    except InputError as error:
        refused = str(error)
    print(json.dumps({"seen": found, "refused": refused}))
    ray.shutdown()
