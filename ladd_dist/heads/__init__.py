"""Kind `head`: a light classifier on one tap of the frozen teacher."""

from __future__ import annotations

from torch import nn

from ladd_dist.core.plugin import Plugin


class Head(Plugin):
    """Classifier of the teacher's and the student's samples on one feature map. Register a subclass for a variant."""

    kind = "head"

    def build(self, *, channels: int, cond_dim: int) -> nn.Module:
        """Build a module `(features [B,c,h,w], cond_vec [B,E]) -> logits [B,K]`, for c = `channels`, E = `cond_dim`.

        Any h, w >= 1 must work. No value of one sample may depend on another's (so no batch normalisation): the engine
        evaluates real and fake samples in one call.
        """
        raise NotImplementedError
