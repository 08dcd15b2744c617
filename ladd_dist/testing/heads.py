"""The contract of kind `head`, as a check that its author can run; import it from `ladd_dist.testing`."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ladd_dist.core.gan import check_logits
from ladd_dist.heads import Head
from ladd_dist.testing.basics import TOLERANCE, ContractError, call, check_basics, label, require, seeded

COND_DIM = 6


def check_head(head: Head) -> None:
    """Check `Head.build`: any map size, finite logits [B,K], independent samples, no hidden state.

    Raises:
        ContractError: the first thing that does not hold.
    """
    check_basics(head)
    with seeded():
        for channels in (5, 16):
            module = _build(head, channels)
            _check_independence(head, module, channels)
            for height, width in ((1, 1), (2, 2), (2, 5), (5, 5), (8, 8)):
                for batch in (1, 3):
                    for training in (True, False):
                        module.train(training)
                        _logits(head, module, *_inputs(batch, channels, height, width))
        _check_gradients(head, _build(head, 16), 16)
        _check_state(head, 16)


def _build(head: Head, channels: int) -> nn.Module:
    module = call(label(head), f"to build for {channels} channels", head.build, channels=channels, cond_dim=COND_DIM)
    require(isinstance(module, nn.Module), f"{label(head)}: build returned a {type(module).__name__}, not a Module")
    assert isinstance(module, nn.Module)
    return module


def _inputs(batch: int, channels: int, height: int, width: int) -> tuple[Tensor, Tensor]:
    return torch.randn(batch, channels, height, width), torch.randn(batch, COND_DIM)


def _logits(head: Head, module: nn.Module, features: Tensor, cond_vec: Tensor) -> Tensor:
    where = f"{'training' if module.training else 'eval'} mode, features {list(features.shape)}"
    logits = call(label(head), f"in {where}", module, features, cond_vec)
    try:
        check_logits("test", logits, len(features), head=head.name)
    except ValueError as error:
        raise ContractError(f"{error} ({where})") from error
    assert isinstance(logits, Tensor)
    require(bool(logits.isfinite().all()), f"{label(head)} returns NaN or infinity for ordinary features ({where})")
    return logits


def _check_independence(head: Head, module: nn.Module, channels: int) -> None:
    who = label(head)
    features, cond_vec = _inputs(3, channels, 8, 8)
    advice = "no sample may see another one of its batch (replace batch normalisation by group normalisation)"
    for training in (True, False):
        module.train(training)
        mode = "training" if training else "eval"
        leaves = (features.clone().requires_grad_(), cond_vec.clone().requires_grad_())
        logits = _logits(head, module, *leaves)
        require(logits.requires_grad, f"{who}: the logits do not depend on features or parameters ({mode} mode)")
        for gradient in torch.autograd.grad(logits[0].sum(), leaves, allow_unused=True):
            alone = gradient is None or not bool(gradient[1:].any())
            require(alone, f"{who}: a logit depends on other samples ({mode} mode); {advice}")
    order = torch.tensor([2, 0, 1])
    module.eval()
    plain, permuted = _logits(head, module, features, cond_vec), _logits(head, module, features[order], cond_vec[order])
    require(
        torch.allclose(plain[order], permuted, atol=TOLERANCE),
        f"{who}: permuting the batch does not permute the logits; {advice}",
    )


def _check_gradients(head: Head, module: nn.Module, channels: int) -> None:
    who = label(head)
    parameters = {name: value for name, value in module.named_parameters() if value.requires_grad}
    require(bool(parameters), f"{who} has no trainable parameter")
    with torch.no_grad():  # zero-initialised output layers are fine, but would hide every gradient below them
        for parameter in parameters.values():
            parameter.add_(0.05 * torch.randn_like(parameter))
    features, cond_vec = _inputs(3, channels, 8, 8)
    leaves = {"features": features.requires_grad_(), "cond_vec": cond_vec.requires_grad_(), **parameters}
    logits = _logits(head, module.train(), features, cond_vec)
    loss = (logits * torch.randn_like(logits)).sum()
    gradients = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True)
    for name, gradient in zip(leaves, gradients, strict=True):
        reached = gradient is not None and bool(gradient.any())
        what = name if name in ("features", "cond_vec") else f"parameter {name!r}"
        if name != "cond_vec":
            require(reached, f"{who}: no gradient reaches {what}; a detach, or a part that is built and never used?")
        elif hasattr(head, "conditioned"):
            expected = "must change the logits" if head.conditioned else "must not change the logits"
            require(reached == head.conditioned, f"{who}: with conditioned={head.conditioned} cond_vec {expected}")


def _check_state(head: Head, channels: int) -> None:
    who = label(head)
    module, other = _build(head, channels), _build(head, channels)
    shared = {id(value) for value in module.parameters()} & {id(value) for value in other.parameters()}
    require(not shared, f"{who}: two calls of build share parameters; each tap needs a head of its own")
    inputs = _inputs(3, channels, 5, 5)
    _logits(head, module.train(), *inputs)  # moves what training moves, as spectral norm does
    call(who, "to load its own state_dict", other.load_state_dict, module.state_dict())
    module.eval().requires_grad_(False)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    first, second = _logits(head, module, *inputs), _logits(head, module, *inputs)
    moved = [name for name, value in module.state_dict().items() if not torch.equal(value, before[name])]
    require(not moved, f"{who}: an eval-mode forward changes {moved[:1]}; the frozen heads must stand still")
    require(torch.equal(first, second), f"{who}: the same input gives different logits in eval mode")
    restored = _logits(head, other.eval(), *inputs)
    same = torch.allclose(first, restored, atol=TOLERANCE)
    require(same, f"{who}: other logits after a state_dict round trip; keep all state in parameters and buffers")
