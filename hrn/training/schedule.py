"""The learning rate as a pure function of the step."""

import math

SCHEDULES = ("step", "cosine")


def lr_at(
    step: int, *, base: float, max_steps: int, schedule: str = "step", decay: int = 200_000, warmup: int = 0
) -> float:
    """Return the learning rate of update `step`, counted from 0.

    Args:
        base: the peak learning rate.
        max_steps: length of the run.
        schedule: one of SCHEDULES. `step` halves the rate every `decay` steps, as the released code does. `cosine` falls to 0 at `max_steps`.
        decay: see `schedule`.
        warmup: number of steps over which the rate first grows linearly.
    """
    if step < warmup:
        return base * (step + 1) / warmup
    if schedule == "step":
        return base * 0.5 ** (step // decay)
    progress = min(1.0, (step - warmup) / max(1, max_steps - warmup))
    return base * 0.5 * (1 + math.cos(math.pi * progress))
