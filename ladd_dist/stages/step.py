"""The training step under the name that other projects import it by; it is built in `ladd_dist.builders.step`."""

from ladd_dist.builders.step import Frozen, build_critic, build_heads, build_step, freeze, taps_of

__all__ = ["Frozen", "build_critic", "build_heads", "build_step", "freeze", "taps_of"]
