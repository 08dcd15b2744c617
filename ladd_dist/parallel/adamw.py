"""PyTorch's AdamW for steps that run as they are written, without the compiler's part."""

from __future__ import annotations

import inspect

import torch


class EagerAdamW(torch.optim.AdamW):
    """`torch.optim.AdamW`, number for number, that never imports `torch._dynamo`.

    PyTorch wraps these methods so that its compiler leaves them out, and the wrappers import the compiler when they are
    called (torch 2.15: 900 modules, SymPy among them). This project compiles blocks of networks, never an optimizer.
    """

    add_param_group = inspect.unwrap(torch.optim.Optimizer.add_param_group)
    zero_grad = inspect.unwrap(torch.optim.Optimizer.zero_grad)
    state_dict = inspect.unwrap(torch.optim.Optimizer.state_dict)
    load_state_dict = inspect.unwrap(torch.optim.Optimizer.load_state_dict)
    step = torch.no_grad()(inspect.unwrap(torch.optim.AdamW.step))  # the wrapper of `step` turns gradients off
