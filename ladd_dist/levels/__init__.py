"""Kind `levels`: the noise levels of a few-step sampler, a named choice because it decides few-step quality."""

from __future__ import annotations

from ladd_dist.core.plugin import Plugin


class Levels(Plugin):
    """Descending noise levels at which a sampler calls the network."""

    kind = "levels"

    def __call__(self, num_steps: int) -> tuple[float, ...]:
        """Descending levels > 0 in units of x0, `num_steps` of them, without the final 0.

        Raises:
            ValueError: there are no levels for that many steps.
        """
        raise NotImplementedError
