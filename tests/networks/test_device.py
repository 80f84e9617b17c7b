"""The seam to a GPU, as far as it can be seen without one."""

from __future__ import annotations

import pytest
import torch

from benchmark.base.errors import MorphobenchError
from benchmark.networks.device import (
    autocast,
    device_name,
    free_memory,
    give_back_memory,
    gpu_peak,
    moved,
    optimiser_options,
    resolve_device,
    set_rate,
)

CPU = torch.device("cpu")


def test_devices_that_are_not_there_are_refused():
    assert resolve_device("auto").type in ("cpu", "cuda")
    with pytest.raises(MorphobenchError, match="no device"):
        resolve_device("abacus")
    if not torch.cuda.is_available():
        with pytest.raises(MorphobenchError, match="no CUDA GPU"):
            resolve_device("cuda")


def test_the_peak_of_the_gpu_is_that_of_the_fold_alone(monkeypatch):
    held = {"peak": 900 * 2**20}  # of a fold before, in the same process
    monkeypatch.setattr(torch.cuda, "init", lambda: None)
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda device: held.update(peak=0))
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: held["peak"])
    facts: dict[str, object] = {}
    with gpu_peak(torch.device("cuda"), facts):
        held["peak"] = max(held["peak"], 300 * 2**20)
    assert facts == {"peak_gpu_mib": 300}
    with gpu_peak(CPU, facts):
        pass
    assert facts == {"peak_gpu_mib": 300}


def test_what_pytorch_keeps_in_reserve_counts_as_free(monkeypatch):
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 500)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 200)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (1000, 9000))
    assert free_memory(torch.device("cuda")) == 1300
    assert free_memory(CPU) > 2**20


def test_a_cpu_computes_in_float32_unless_asked():
    for asked, wanted in ((False, torch.float32), (True, torch.bfloat16)):
        with autocast(CPU, asked):
            assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == wanted


def test_a_cpu_needs_nothing_special():
    values = torch.ones(2)
    assert moved(values, CPU) is values and device_name(CPU) == "cpu"
    assert optimiser_options(CPU, True, 0.1) == {"lr": 0.1}
    give_back_memory(CPU)


def test_a_rate_that_a_graph_reads_is_set_in_place():
    tensor = torch.tensor(0.1)
    groups = [{"lr": tensor}, {"lr": 0.1}]
    for group in groups:
        set_rate(group, 0.5)
    assert groups[0]["lr"] is tensor and float(tensor) == 0.5 and groups[1]["lr"] == 0.5
