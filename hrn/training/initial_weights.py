"""Starting a new run from the weights of an earlier one: `--init_from` and `--grow_from`."""

import logging

from hrn.checkpoint import Checkpoint, load_matching_weights, load_network
from hrn.checkpoint.fit import first_names
from hrn.errors import HRNError
from hrn.model import HRN
from hrn.model.growth import grow
from hrn.training.trainer import Trainer

logger = logging.getLogger(__name__)

MAX_LISTED = 10
"""Number of weights to name in the log."""


def init_from(trainer: Trainer, checkpoint: Checkpoint) -> None:
    """Load all weights of a checkpoint that fit by name and shape.

    Raises:
        HRNError: no kernel fits, or running statistics are missing and are to be frozen.
    """
    missing, unused = load_matching_weights(trainer.learner.network, checkpoint)
    new_statistics = [name for name in missing if name.endswith(("running_mean", "running_var"))]
    if trainer.recipe.freeze_norm and new_statistics:
        raise HRNError(
            f"--init_from {checkpoint.path} has no {', '.join(new_statistics)} of the right shape, which --freeze_norm needs"
        )
    logger.info(
        "--init_from %s: new weights: %s; unused: %s",
        checkpoint.path, first_names(missing, MAX_LISTED) or "none", first_names(unused, MAX_LISTED) or "none",
    )  # fmt: skip
    _start_from(trainer, checkpoint, "init_from")


def grow_from(trainer: Trainer, checkpoint: Checkpoint) -> None:
    """Embed a smaller network, see :mod:`hrn.model.growth`. Raises HRNError if it does not fit into the new one."""
    small = load_network(checkpoint)
    if not isinstance(small, HRN) or not isinstance(trainer.learner.network, HRN):
        raise HRNError(f"--grow_from {checkpoint.path}: only HRN networks can grow, not {checkpoint.model_name}")
    try:
        grow(small.to(trainer.processes.device), trainer.learner.network)
    except ValueError as error:
        raise HRNError(f"--grow_from {checkpoint.path}: {error}") from None
    logger.info("--grow_from %s: the network is embedded in the larger one", checkpoint.path)
    _start_from(trainer, checkpoint, "grow_from")


def _start_from(trainer: Trainer, checkpoint: Checkpoint, flag: str) -> None:
    learner = trainer.learner
    if learner.ema:
        learner.ema.module.load_state_dict(learner.network.state_dict())
    if trainer.processes.is_main:  # the other processes may not have the file
        trainer.info[flag] = {"file": checkpoint.path.name, "sha256": checkpoint.sha256}
