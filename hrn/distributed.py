"""One process or many, by PyTorch's own means: torchrun starts them, `torch.distributed` joins them.

    torchrun --nproc_per_node=4 hrn/train.py ...          one machine
    torchrun --nnodes=2 --rdzv_backend=c10d --rdzv_endpoint=HOST:29400 --nproc_per_node=4 hrn/train.py ...
    python hrn/train.py --num_gpu 4 ...                   the same as the first

With --max_restarts, torchrun starts all processes again when one dies, and they go on from the newest training state. On
several machines it needs TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 for that, in its environment, and where their names do not
lead to an address that the others reach, GLOO_SOCKET_IFNAME with the name of the network's interface.
"""

import os
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

from hrn.errors import HRNError
from hrn.runtime import pick_device

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Processes:
    """This process among those of a run."""

    rank: int = 0
    count: int = 1
    device: torch.device = CPU

    @property
    def is_main(self) -> bool:
        """Whether this is the process that writes files and speaks."""
        return self.rank == 0

    def mean(self, values: Tensor) -> Tensor:
        """The mean over all processes of a tensor on the device, the same bits on each."""
        if self.count > 1:
            dist.all_reduce(values)
            values /= self.count
        return values

    def max(self, value: int) -> int:
        """The largest of a small number that each process has."""
        if self.count == 1:
            return value
        shared = torch.tensor(value, device=self.device)
        dist.all_reduce(shared, dist.ReduceOp.MAX)
        return int(shared)

    def gather(self, mine: list[Any]) -> list[Any]:
        """All processes' lists, dealt out like cards before (first to rank 0, second to rank 1, ...), in order again."""
        if self.count == 1:
            return mine
        hands: list[list[Any]] = [[] for _ in range(self.count)]
        dist.all_gather_object(hands, mine)
        return [hands[i % self.count][i // self.count] for i in range(sum(map(len, hands)))]

    def run_on_all(self, action: Callable[[], None]) -> None:
        """Let each process do something; where one of them raises an HRNError, all do, and none waits for another."""
        message = ""
        try:
            action()
        except HRNError as error:
            message = str(error)
        for told in self.gather([message]):
            if told:
                raise HRNError(told)

    def run_on_main(self, make: Callable[[], Any]) -> Any:
        """What the first process makes, in all of them."""
        made: list[Any] = [None]

        def make_it() -> None:
            if self.is_main:
                made[0] = make()

        self.run_on_all(make_it)
        if self.count > 1:
            dist.broadcast_object_list(made)
        return made[0]


@contextmanager
def join_processes(device: str, timeout: timedelta | None = None) -> Iterator[Processes]:
    """Join the processes that torchrun started; where it did not, this process is alone.

    Args:
        device: as for :func:`hrn.runtime.pick_device`; with `auto`, each process of a machine takes a GPU of its own.
        timeout: how long processes wait for one another; by default as long as PyTorch does, some minutes.
    """
    count = int(os.environ.get("WORLD_SIZE", 1))
    local = int(os.environ.get("LOCAL_RANK", 0))
    if count > 1 and (device == "cuda" or (device == "auto" and torch.cuda.is_available())):
        if local >= torch.cuda.device_count():
            raise HRNError(f"{local + 1} processes on this machine, but {torch.cuda.device_count()} GPUs")
        device = f"cuda:{local}"
    elif count > 1 and device.startswith("cuda"):
        raise HRNError(f"--device {device} is one GPU, but there are {count} processes; use --device cuda")
    chosen = pick_device(device)
    if chosen.type == "cuda":
        torch.cuda.set_device(chosen)
    if count == 1:
        yield Processes(device=chosen)
        return
    store, rank, count = next(rendezvous("env://"))
    if int(os.environ.get("GROUP_WORLD_SIZE", 1)) == 1:
        # processes that torchrun started again would find addresses of dead ones in the store that it shares with them:
        # https://github.com/pytorch/pytorch/issues/135712
        store = dist.PrefixStore(f"attempt {os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}", store)
    backend = "cpu:gloo,cuda:nccl" if chosen.type == "cuda" else "gloo"  # Python objects go by gloo
    dist.init_process_group(backend, store=store, rank=rank, world_size=count, timeout=timeout)
    yield Processes(rank, count, chosen)
    dist.destroy_process_group()  # not after an error: it would wait for processes that wait for this one


def is_worker() -> bool:
    """Whether torchrun started this process."""
    return "TORCHELASTIC_RUN_ID" in os.environ


def is_restarted() -> bool:
    """Whether torchrun started this process again, because one of them had died."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", 0)) > 0


def exit_process(code: int) -> NoReturn:
    """End this process; one that torchrun started, without taking the interpreter apart.

    gloo's threads may still let go of tensors, for which they need the interpreter. Where it is being taken apart, that ends
    the process by SIGABRT instead of its exit code: https://github.com/pytorch/pytorch/pull/179291
    """
    if not is_worker():
        sys.exit(code)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def launch(script: str, argv: list[str], processes: int) -> int:
    """Run a script in several processes on this machine, and wait; 0, or the exit code of the first that failed."""
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import main as torchrun

    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // processes)))
    try:
        torchrun(["--standalone", f"--nproc_per_node={processes}", script, *argv])
    except ChildFailedError as error:
        _, failure = error.get_first_failure()
        return abs(failure.exitcode)
    except SignalException as error:
        return 128 + error.sigval
    return 0
