"""Two processes that each hold half of a batch get the gradient of the whole batch."""

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
import torch.nn.functional as F
from torch.nn.parallel import DistributedDataParallel

from mmcuda import ClinicalSupConLoss, Within
from mmcuda.train.ranks import gather_ranks

IMAGES = torch.randn(8, 2, 6, generator=torch.Generator().manual_seed(0))
CST = torch.tensor([200.0, 210, 300, torch.nan, 305, 215, 400, 290])
CRITERION = ClinicalSupConLoss({"cst": Within(20.0)}, temperature=0.5)


def linear():
    torch.manual_seed(0)
    return torch.nn.Linear(6, 4)


def loss_of(model, images, cst):
    return CRITERION(gather_ranks(F.normalize(model(images), dim=-1)), {"cst": gather_ranks(cst)})


def one_of_two(rank, folder):
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    model = DistributedDataParallel(linear())
    half = slice(4 * rank, 4 * rank + 4)
    loss = loss_of(model, IMAGES[half], CST[half])
    loss.backward()
    if rank == 0:
        torch.save({"loss": loss.detach(), "gradient": model.module.weight.grad}, f"{folder}/result.pt")
    dist.destroy_process_group()


def test_two_halves_give_the_gradient_of_the_whole(tmp_path, monkeypatch):
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")  # not by the host's name, which need not resolve
    mp.spawn(one_of_two, args=(str(tmp_path),), nprocs=2)
    result = torch.load(tmp_path / "result.pt")
    model = linear()
    loss = loss_of(model, IMAGES, CST)
    loss.backward()
    torch.testing.assert_close(result["loss"], loss.detach())
    torch.testing.assert_close(result["gradient"], model.weight.grad)
