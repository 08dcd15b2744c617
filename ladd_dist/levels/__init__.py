"""Kind `levels`: the noise levels of a few-step sampler, a named choice because it decides few-step quality."""

from __future__ import annotations

from ladd_dist.core.plugin import Plugin


class Levels(Plugin):
    """The descending noise levels at which a sampler calls the network."""

    kind = "levels"

    def __call__(self, num_steps: int) -> tuple[float, ...]:
        """`num_steps` levels, descending, > 0, in the units of x0; the final 0 is not among them.

        Raises:
            ValueError: no levels for that many steps.
        """
        raise NotImplementedError
