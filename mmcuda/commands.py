"""What each command runs: the call that its parsed options become. Only the packages of that command are imported."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def _train(values: dict[str, Any], command: str) -> None:
    from mmcuda.study.config import TrainConfig
    from mmcuda.study.run import StudyRun
    from mmcuda.train.config_file import build

    out, resume = values.pop("out"), values.pop("resume")
    StudyRun(build(TrainConfig, values), out, resume, command).run()


def _study(values: dict[str, Any], command: str) -> None:
    from mmcuda.study.config import StudyConfig
    from mmcuda.study.run import StudyRun
    from mmcuda.train.config_file import build

    out, resume = values.pop("out"), values.pop("resume")
    StudyRun(build(StudyConfig, values), out, resume, command).run()


def _pretrain(values: dict[str, Any], command: str) -> None:
    from mmcuda.train.commands import pretrain_command
    from mmcuda.train.config import PretrainJob
    from mmcuda.train.config_file import build

    out, resume = values.pop("out"), values.pop("resume")
    pretrain_command(build(PretrainJob, values), out, resume)


def _finetune(values: dict[str, Any], command: str) -> None:
    from mmcuda.train.finetune_command import finetune_command
    from mmcuda.train.finetune_config import FinetuneConfig

    checkpoint, out, resume = values.pop("checkpoint"), values.pop("out"), values.pop("resume")
    finetune_command(checkpoint, FinetuneConfig(**values), out, resume)


def _evaluate(values: dict[str, Any], command: str) -> None:
    from mmcuda.train.commands import evaluate_command
    from mmcuda.train.config import EvaluateConfig

    checkpoint, out, data = values.pop("checkpoint"), values.pop("out"), values.pop("data")
    evaluate_command(checkpoint, EvaluateConfig(**values), out, data)


def _embed(values: dict[str, Any], command: str) -> None:
    from mmcuda.train.commands import embed_command

    embed_command(values["checkpoint"], values["out"], values["data"])


def _predict(values: dict[str, Any], command: str) -> None:
    from mmcuda.predict.command import predict_command
    from mmcuda.predict.config import PredictConfig

    checkpoint, out = values.pop("checkpoint"), values.pop("out")
    predict_command(checkpoint, PredictConfig(**values), out)


def _export(values: dict[str, Any], command: str) -> None:
    from mmcuda.predict.config import ExportConfig
    from mmcuda.predict.export import export_command

    checkpoint, out = values.pop("checkpoint"), values.pop("out")
    export_command(checkpoint, ExportConfig(**values), out)


def _check(values: dict[str, Any], command: str) -> int:
    from mmcuda.data.config import CheckConfig
    from mmcuda.train.data_commands import check_command

    out = values.pop("out")
    return check_command(CheckConfig(**values), out)


def _cache(values: dict[str, Any], command: str) -> None:
    from mmcuda.data.config import CacheConfig
    from mmcuda.train.data_commands import cache_command

    cache_command(CacheConfig(**values).data)


Run = Callable[[dict[str, Any], str], int | None]
RUN: dict[str, Run] = {
    "train": _train,
    "study": _study,
    "pretrain": _pretrain,
    "finetune": _finetune,
    "evaluate": _evaluate,
    "embed": _embed,
    "predict": _predict,
    "export": _export,
}
RUN_DATA: dict[str, Run] = {"check": _check, "cache": _cache}
