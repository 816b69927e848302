"""What every forked test process would import anyway."""

import torch.distributed.checkpoint
import torch.distributed.fsdp

import train

__all__ = ["torch", "train"]
