"""The command line: ``mmcuda train|study|pretrain|finetune|evaluate|embed|predict|export|data|info|selfcheck``.

Every option of the training flow is a field of a configuration class of ``mmcuda.train.config``; ``--config FILE``
reads them from YAML and flags override it. What the user can put right ends in one line on stderr and exit code 2; any
other failure in one line and exit code 1. ``--debug`` shows the traceback.
"""

from __future__ import annotations

import argparse
import json
import re
import shlex
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from mmcuda.commands import RUN, RUN_DATA
from mmcuda.errors import Unfinished, UserError, did_you_mean

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser

COMMANDS = {
    "train": "compare clinical pretraining with its baselines at several label fractions, and report",
    "study": "the same for any arms (methods, labels, readouts), over several seeds",
    "pretrain": "pretrain one encoder",
    "finetune": "train a classifier on a pretrained encoder",
    "evaluate": "score a pretrained encoder by linear probes",
    "embed": "write the features of a pretrained encoder",
    "predict": "write the probabilities of new images",
    "export": "write a model for other programs, as safetensors or ONNX",
    "data": "check a cohort before training on it, or decode its images: mmcuda data check, mmcuda data cache",
    "info": "show versions, devices and kernels",
    "selfcheck": "check the kernels on this machine and time them, for a bug report",
}
DATA_OF_CHECKPOINT = ("finetune", "evaluate", "embed")  # commands whose data are the checkpoint's where not given
DATA_COMMANDS = {
    "check": "list everything that is wrong with a cohort: cells, images, labels, leaks between the sides of its split",
    "cache": "decode the images of a cohort once, for all trainings on it",
}
EXTRA_OF_PACKAGE = {"pylidc": "demo", "onnx": "export", "onnxscript": "export"}  # all others are in the extra `train`


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in arguments
    arguments = [argument for argument in arguments if argument != "--debug"]
    try:
        return _run(arguments)
    except KeyboardInterrupt:
        return _fail("interrupted", 130, debug)
    except ModuleNotFoundError as error:
        package = (error.name or "").split(".")[0]
        extra = EXTRA_OF_PACKAGE.get(package, "train")
        return _fail(f"the package {package} is missing: pip install 'mmcuda[{extra}]'", 2, debug)
    except UserError as error:
        return _fail(str(error), 2, debug)
    except Unfinished as error:
        return _fail(str(error), 1, debug)
    except Exception as error:
        return _fail(f"{type(error).__name__}: {error}", 1, debug)


def _fail(message: str, code: int, debug: bool) -> int:
    if debug:
        traceback.print_exc()
    print(f"mmcuda: error: {' '.join(message.split())}", file=sys.stderr)
    return code


def _run(arguments: list[str]) -> int:
    words = list(arguments)
    commands, runs, prog = COMMANDS, RUN, "mmcuda"
    if words[:1] == ["data"]:
        commands, runs, prog = DATA_COMMANDS, RUN_DATA, f"mmcuda {words.pop(0)}"
    command = words[0] if words else ""
    if command in PLAIN and commands is COMMANDS:
        try:
            return PLAIN[command](words[1:])
        except SystemExit:  # --help
            return 0
    if command not in commands and not command.startswith("-"):
        raise UserError(
            f"{prog.removeprefix('mmcuda').lstrip()} COMMAND must be one of {', '.join(commands)}, "
            f"got '{command}'{did_you_mean(command, [*commands])}".lstrip()
        )
    import jsonargparse

    words, tree = _choices(_with_defaults(words))
    parser, subparser = _parsers(prog, commands, command, tree)
    try:
        options = parser.parse_args(words)
    except jsonargparse.ArgumentError as error:
        raise UserError(_one_line(str(error), subparser or parser)) from error
    except SystemExit as stop:  # --help, --version and --print_config end here
        return int(stop.code or 0)
    values = parser.instantiate(options)[options.subcommand].as_dict()
    for name in ("config", "study_config", "debug"):
        values.pop(name, None)
    return runs[options.subcommand](values, shlex.join(["mmcuda", *arguments])) or 0


def _parsers(
    prog: str, commands: Mapping[str, str], command: str, tree: Mapping[str, Any]
) -> tuple[ArgumentParser, ArgumentParser | None]:
    """Return the parser, and the parser of ``command``; the other commands get no options, which saves imports.

    ``tree`` names the methods whose options there are.
    """
    import jsonargparse

    import mmcuda

    jsonargparse.set_parsing_settings(docstring_parse_attribute_docstrings=True)
    parser = jsonargparse.ArgumentParser(
        prog=prog,
        description="Contrastive pretraining for medical images with scarce expert labels.",
        version=mmcuda.__version__,
        exit_on_error=False,
    )
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    subcommands = parser.add_subcommands(required=True, metavar="COMMAND")
    chosen = None
    for name, purpose in commands.items():
        subparser = jsonargparse.ArgumentParser(description=purpose, exit_on_error=False)
        if name == command:
            chosen = subparser
            _add_options(subparser, name, tree)
        subcommands.add_subcommand(name, subparser, help=purpose)
    return parser, chosen


def _add_options(parser: ArgumentParser, command: str, tree: Mapping[str, Any]) -> None:
    from mmcuda.data.config import CacheConfig, CheckConfig, DataConfig
    from mmcuda.predict.config import ExportConfig, PredictConfig
    from mmcuda.study.config import StudyConfig, TrainConfig
    from mmcuda.train import config
    from mmcuda.train.config_file import add_options
    from mmcuda.train.finetune_config import FinetuneConfig

    kinds: dict[str, Any] = {
        "train": TrainConfig,
        "study": StudyConfig,
        "pretrain": config.PretrainJob,
        "finetune": FinetuneConfig,
        "evaluate": config.EvaluateConfig,
        "predict": PredictConfig,
        "export": ExportConfig,
        "check": CheckConfig,
        "cache": CacheConfig,
    }
    outputs = {
        "evaluate": "new file for the rows, .csv or .json",
        "embed": "new file for the features, .npz or .csv",
        "predict": "new file for the probabilities, .csv",
        "export": "new folder for the model",
        "check": "folder for cohort_report.html and cohort_report.json",
    }
    parser.add_argument("--config", action="config", help="YAML file with options; flags override it")
    if command in ("finetune", "evaluate", "embed", "predict", "export"):
        parser.add_argument("checkpoint", type=Path, help="folder of a checkpoint, as under checkpoints/ in a run")
    if command != "cache":
        is_required = command != "check"
        kind = Path if is_required else Path | None
        parser.add_argument("--out", type=kind, required=is_required, help=outputs.get(command, "folder to write"))
    if command == "study":
        parser.add_argument("study_config", metavar="CONFIG", type=Path, nargs="?", help="the same as --config CONFIG")
    if command in ("train", "study", "pretrain", "finetune"):
        parser.add_argument("--resume", action="store_true", help="continue the run in the folder of --out")
    if command in kinds:
        add_options(parser, kinds[command], tree, skip={"data"} if command in DATA_OF_CHECKPOINT else ())
    if command in DATA_OF_CHECKPOINT:
        parser.add_class_arguments(DataConfig, "data")


def _with_defaults(words: list[str]) -> list[str]:
    """Let what is saved be the defaults: the options of the run with --resume, else the data of the checkpoint.

    The options in a study's CONFIG come over them.
    """
    from mmcuda.arguments import scan, spell_out

    words = spell_out(words)
    positional, options = scan(words)
    given = dict(options)
    command, configs = words[0], []
    saved = Path(given.get("--out", "")) / "config.yaml"
    if "--resume" in given and saved.is_file():
        configs.append(str(saved))
    elif command in DATA_OF_CHECKPOINT and len(positional) > 1:
        from mmcuda.train.checkpoint import data_defaults

        configs.append(json.dumps({"data": data_defaults(Path(positional[1]), "--data.source" in given)}))
    if command == "study":
        configs += positional[1:]
    return [command, *(word for config in configs for word in ("--config", config)), *words[1:]]


def _choices(words: list[str]) -> tuple[list[str], dict[str, Any]]:
    """Return the command line and the tree that names its methods."""
    from mmcuda.arguments import method_choice, study_choice

    if words[0] == "pretrain":
        from mmcuda.train.config import PretrainJob

        return method_choice(words, PretrainJob().method.name)
    if words[0] in ("train", "study"):
        from mmcuda.study.config import StudyConfig, TrainConfig

        return words, study_choice(words, (StudyConfig if words[0] == "study" else TrainConfig)().arms)
    return words, {}


def _one_line(message: str, parser: argparse.ArgumentParser) -> str:
    """Return the parser's message in the words of the command line."""
    message = " ".join(message.split())
    message = re.sub(r"^argument (--\w+): ", r"\1: ", message)
    message = re.sub(r"invalid choice: '(.*?)' \(choose from (.*)\)$", r"expected one of \2, got \1", message)
    message = re.sub(r'^Parser key "([\w.]+)":', r"--\1:", message)
    message = re.sub(r"Expected an? ", "expected ", message).replace(". Got value: ", ", got ")
    message = re.sub(r"<class '(?:tuple|list)'>", "a list such as [a,b]", message)
    message = re.sub(r"<class '([\w.]+)'>", r"\1", message)
    message = re.sub(r"(?:typing\.)?Literal\[([^\]]*)\]", r"one of \1", message)
    if union := re.match(
        r"(--[\w.]+): Does not validate against .*? Subtypes: \[(.*), NoneType\] .* value: (.*)$", message
    ):
        kinds = re.sub(r"dict\[str, .*?\]", "a mapping", union[2].replace("tuple[str, ...]", "a list such as [a,b]"))
        message = f"{union[1]}: expected {kinds.replace('str', 'text')}, got {union[3]}"
    message = re.sub(r"the following arguments are required: \w+\.checkpoint$", "CHECKPOINT is required", message)
    message = re.sub(r"the following arguments are required: \w+\.(\w+)$", r"the option --\1 is required", message)
    if match := re.match(r"[Uu]nrecognized arguments: (--[^\s=]+)", message):
        known = [option for action in parser._actions for option in action.option_strings]
        message = f"unknown option {match[1]}{did_you_mean(match[1], known)}"
    return message


class _PlainParser(argparse.ArgumentParser):
    """The parser of a command that works without the packages of the training flow."""

    def __init__(self, command: str) -> None:
        super().__init__(f"mmcuda {command}", description=COMMANDS[command], allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        """Raise a UserError instead of printing the usage."""
        raise UserError(_one_line(message, self))


def _info(arguments: list[str]) -> int:
    from mmcuda.info import describe

    _PlainParser("info").parse_args(arguments)
    print(describe())
    return 0


def _selfcheck(arguments: list[str]) -> int:
    from mmcuda.selfcheck import selfcheck

    parser = _PlainParser("selfcheck")
    parser.epilog = (
        "With two CPU cores the check takes about 20 seconds, on a GPU as well since its float64 reference runs on the "
        "CPU, and the timing 10; with --quick 10 seconds in all. Without --compile nothing is compiled."
    )
    parser.add_argument("--device", choices=["cuda", "cpu"], help="default: cuda where there is a device, else cpu")
    parser.add_argument("--quick", action="store_true", help="tiny sizes")
    parser.add_argument(
        "--compile",
        action="store_true",
        help="time dense PyTorch under torch.compile as well, which compiles 10 to 20 seconds for each N and dtype",
    )
    return selfcheck(**vars(parser.parse_args(arguments)))


def _task(arguments: list[str]) -> int:
    """Do one task of a study: what ``--processes`` starts."""
    from mmcuda.study.processes import run_task

    run_task(Path(arguments[0]), arguments[1])
    return 0


PLAIN: dict[str, Callable[[list[str]], int]] = {"info": _info, "selfcheck": _selfcheck, "_task": _task}
