"""Runs of one or more processes: torchrun starts them and `torch.distributed` connects them.

    torchrun --nproc_per_node=4 hrn/train.py ...          one machine
    torchrun --nnodes=2 --rdzv_backend=c10d --rdzv_endpoint=HOST:29400 --nproc_per_node=4 hrn/train.py ...
    python hrn/train.py --num_gpu 4 ...                   the same as the first command

With --max_restarts, torchrun restarts all processes after one has died, and training resumes from the newest state. On
several machines, restarts need TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 in torchrun's environment. If a machine's host name does
not resolve to an address that the others can reach, set GLOO_SOCKET_IFNAME to the name of its network interface.
"""

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, NoReturn

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.rendezvous import rendezvous

from hrn.cpus import cpu_count
from hrn.errors import HRNError, ReportedError
from hrn.runtime import check_driver, pick_device

CPU = torch.device("cpu")
SHUTDOWN_SECONDS = "600"
"""Time for processes to save their state after a signal, before torchrun kills them. Its default is 30 seconds. PyTorch 2.11
ignores this."""


@dataclass(frozen=True)
class Processes:
    """This process and its place among the processes of a run. All methods but `is_main` are collective."""

    rank: int = 0
    count: int = 1
    device: torch.device = CPU

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and logs."""
        return self.rank == 0

    def average_(self, tensors: list[Tensor]) -> None:
        """Average tensors in place over all processes, in one transfer. They must be on `device` and have the same dtype.

        Every process gets the same bits.
        """
        if self.count > 1:
            values = torch.cat([t.flatten() for t in tensors])
            dist.all_reduce(values)
            means = (values / self.count).split([t.numel() for t in tensors])
            torch._foreach_copy_(tensors, [mean.view(t.shape) for mean, t in zip(means, tensors, strict=True)])

    def max(self, value: int) -> int:
        """Return the largest `value` of all processes."""
        if self.count == 1:
            return value
        shared = torch.tensor(value, device=self.device)
        dist.all_reduce(shared, dist.ReduceOp.MAX)
        return int(shared)

    def gather(self, mine: list[Any]) -> list[Any]:
        """Merge the lists of all processes and undo the round-robin sharding: item i is from process i % count."""
        if self.count == 1:
            return mine
        shards: list[list[Any]] = [[] for _ in range(self.count)]
        dist.all_gather_object(shards, mine)
        return [shards[i % self.count][i // self.count] for i in range(sum(map(len, shards)))]

    def run_on_all(self, action: Callable[[], None]) -> None:
        """Run `action` in every process. If it raises HRNError in one of them, all raise, so that none is left waiting."""
        error_message = ""
        try:
            action()
        except HRNError as error:
            error_message = str(error)
        for message in self.gather([error_message]):
            if message:
                raise (HRNError if self.is_main or error_message else ReportedError)(message)

    def run_on_main(self, make: Callable[[], Any]) -> Any:
        """Run `make` in the main process and return its result in all processes. Raises HRNError in all if it fails."""
        made: list[Any] = [None]

        def make_on_main() -> None:
            if self.is_main:
                made[0] = make()

        self.run_on_all(make_on_main)
        if self.count > 1:
            dist.broadcast_object_list(made)
        return made[0]


@contextmanager
def join_processes(device: str, timeout: timedelta | None = None) -> Iterator[Processes]:
    """Join the processes that torchrun started. Without torchrun, there is a single process.

    Args:
        device: as for :func:`hrn.runtime.pick_device`. With `auto` or `cuda`, each process of a machine gets its own GPU.
        timeout: how long processes wait for each other. PyTorch's default is several minutes.

    Raises:
        HRNError: more processes than GPUs, or a device that is not usable.
    """
    count = int(os.environ.get("WORLD_SIZE", 1))
    local = int(os.environ.get("LOCAL_RANK", 0))
    if count > 1 and (device == "cuda" or (device == "auto" and torch.cuda.is_available())):
        if local >= torch.cuda.device_count():
            raise HRNError(
                f"at least {local + 1} processes on this machine, but usable GPUs: {torch.cuda.device_count()}; start one "
                "process per GPU, or use --device cpu"
            )
        device = f"cuda:{local}"
    elif count > 1 and device.startswith("cuda"):
        raise HRNError(f"--device {device} is a single GPU for {count} processes; use --device cuda")
    chosen = pick_device(device)
    if chosen.type == "cuda":
        torch.cuda.set_device(chosen)
    if count == 1:
        yield Processes(device=chosen)
        return
    store, rank, count = next(rendezvous("env://"))
    if int(os.environ.get("GROUP_WORLD_SIZE", 1)) == 1:
        # restarted processes would find the addresses of dead ones in the store that they share with torchrun:
        # https://github.com/pytorch/pytorch/issues/135712
        store = dist.PrefixStore(f"attempt {os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}", store)
    backend = "cpu:gloo,cuda:nccl" if chosen.type == "cuda" else "gloo"  # Python objects are sent by gloo
    dist.init_process_group(backend, store=store, rank=rank, world_size=count, timeout=timeout)
    yield Processes(rank, count, chosen)
    dist.destroy_process_group()  # not after an error: it would wait for processes that wait for this one


def started_by_torchrun() -> bool:
    """Return whether torchrun started this process."""
    return "TORCHELASTIC_RUN_ID" in os.environ


def is_restarted() -> bool:
    """Return whether torchrun restarted this process after a failure."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", 0)) > 0


def exit_process(code: int) -> NoReturn:
    """Exit. In torchrun's workers, skip interpreter teardown.

    gloo's threads may release tensors during teardown, which ends the process with SIGABRT instead of its exit code:
    https://github.com/pytorch/pytorch/pull/179291
    """
    if not started_by_torchrun():
        sys.exit(code)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def check_process_count(num_gpu: int) -> None:
    """Raise HRNError if `--num_gpu` differs from the number of processes that torchrun started on this machine."""
    started = os.environ.get("LOCAL_WORLD_SIZE", "1")
    if started_by_torchrun() and num_gpu > 1 and str(num_gpu) != started:
        raise HRNError(f"--num_gpu {num_gpu} differs from --nproc_per_node={started} of torchrun; leave out --num_gpu")


def check_gpu_count(processes: int, device: str) -> None:
    """Raise HRNError if `device` is `auto` and this machine has fewer usable GPUs than processes to start."""
    if device != "auto":
        return
    check_driver()
    if processes > torch.cuda.device_count():
        raise HRNError(
            f"--num_gpu {processes}, but this machine has {torch.cuda.device_count()} usable GPUs "
            "(--device cpu starts that many processes on the CPU)"
        )


def launch(script: str, argv: list[str], processes: int) -> int:
    """Run a script in several processes on this machine.

    Returns 0, or the exit code of the first process that failed: 128 plus the number if a signal ended it.
    """
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import main as torchrun

    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, cpu_count() // processes)))
    os.environ.setdefault("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", SHUTDOWN_SECONDS)
    under_nohup = hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    if under_nohup:  # torchrun would pass SIGHUP on to the processes
        os.environ.setdefault("PET_SIGNALS_TO_HANDLE", "SIGTERM,SIGINT,SIGQUIT")
    try:
        torchrun(["--standalone", f"--nproc_per_node={processes}", script, *argv])
    except ChildFailedError as error:
        _, failure = error.get_first_failure()
        code = failure.exitcode  # negative if a signal ended the process
        return code if code >= 0 else 128 - code
    except SignalException as error:
        return 128 + error.sigval
    return 0
