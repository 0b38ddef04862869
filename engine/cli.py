"""The console script: thin, calls the rest."""

from __future__ import annotations

import argparse
import os
import re
import shlex
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, redirect_stdout
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from engine import __version__, interrupts, terminal
from engine.config import STAGE_NAMES, Config, SelectConfig
from engine.errors import ConfigError, PoolscoreError, RunDirError, did_you_mean

EXAMPLES_RUN = """examples:
  poolscore run pool.jsonl --run-dir runs/mine
  poolscore run data/ --run-dir runs/mine --config jobs/dolly.yaml --set select.percent=5
  poolscore run 'data/*.parquet' --run-dir runs/mine --until perplexity
  poolscore run pool.jsonl --run-dir runs/mine --set select.percent=3 --rebuild select
"""
EXAMPLES_PLAN = """examples:
  poolscore plan pool.jsonl
  poolscore plan data/ --config jobs/dolly.yaml --set resources.price_per_node_hour=1.20
  poolscore plan pool.jsonl --run-dir runs/mine --until perplexity
"""
EXAMPLES_SETTINGS = """examples:
  poolscore settings
  poolscore settings finetune
  poolscore settings --config jobs/dolly.yaml > mine.yaml
"""
EXAMPLES_COMPLETION = """examples:
  poolscore completion bash > ~/.local/share/bash-completion/completions/poolscore
  poolscore completion zsh > ~/.zfunc/_poolscore
"""
EXAMPLES_SELECT = """examples:
  poolscore select runs/mine --percent 5 --to hard.jsonl
  poolscore select runs/mine --tokens 1000000 --to hard-1m-tokens.parquet
  poolscore select runs/mine --rows 500 --metric ppl_0 --order high --to surprising.jsonl
"""
EXAMPLES_CONVERT = """examples:
  poolscore convert models/opt-350m
  poolscore convert models/opt-350m/pytorch_model.bin --to models/opt-350m-safe
  poolscore convert facebook/opt-350m --to models/opt-350m
"""


class _Parser(argparse.ArgumentParser):
    """One that says what may have been meant."""

    def error(self, message: str) -> NoReturn:
        super().error(message + self._meant(message))

    def _meant(self, message: str) -> str:
        choices = [name for act in self._actions for name in act.choices or ()]
        # What a command does not know, the top is told of.
        below = [
            command
            for act in self._actions
            if isinstance(act, argparse._SubParsersAction)
            for command in act.choices.values()
        ]
        options = [name for one in (self, *below) for name in one._option_string_actions]
        for pattern, known in (
            (r"invalid choice: '([^']*)'", choices),
            (r"unrecognized arguments: (-[^\s=]+)", options),
        ):
            if found := re.search(pattern, message):
                return did_you_mean(found[1], known)
        return ""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    top = _Parser(
        prog="poolscore",
        description="Find the part of an instruction-tuning pool that is worth training on.",
    )
    top.add_argument("--version", action="version", version=f"poolscore {__version__}")
    commands = top.add_subparsers(
        dest="command",
        required=True,
        metavar="COMMAND",
        help="what to do; COMMAND --help tells more",
    )
    _add_plan(commands)
    _add_run(commands)
    _add_status(commands)
    _add_select(commands)
    _add_settings(commands)
    _add_completion(commands)
    _add_convert(commands)
    return top


def _command(commands: Any, name: str, help_: str, examples: str) -> argparse.ArgumentParser:
    return commands.add_parser(
        name,
        help=help_,
        description=help_[0].upper() + help_[1:] + ".",
        epilog=examples,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def _add_plan(commands: Any) -> None:
    command = _command(
        commands,
        "plan",
        "tell what a run will take, from about a minute's measurement; writes nothing",
        EXAMPLES_PLAN,
    )
    _add_what(command)
    command.add_argument(
        "--run-dir",
        metavar="DIR",
        help="where the run would be; what is finished there is left out",
    )
    _add_json(command)
    command.set_defaults(act=plan)


def _add_run(commands: Any) -> None:
    command = _command(
        commands, "run", "score a pool, or finish what an earlier run began", EXAMPLES_RUN
    )
    _add_what(command)
    command.add_argument(
        "--run-dir",
        required=True,
        metavar="DIR",
        help="where everything is written; a run in it is resumed",
    )
    command.add_argument(
        "--rebuild",
        action="append",
        default=[],
        metavar="STAGE",
        help="redo this stage and what depends on it; may be repeated",
    )
    command.add_argument(
        "-q", "--quiet", action="store_true", help="print nothing but warnings and errors"
    )
    command.set_defaults(act=run)


def _add_what(command: argparse.ArgumentParser) -> None:
    """What is run: the pool, the settings, and how far."""
    command.add_argument(
        "pool",
        nargs="*",
        metavar="POOL",
        help="file, folder or glob of .jsonl, .json, .csv, .tsv (also .gz, .zst), .parquet, "
        ".arrow; without it the configuration's pool.paths",
    )
    _add_config(command)
    command.add_argument(
        "--max-reject-fraction",
        metavar="X",
        help="part of the lines that may be rejected before the run stops (default: 0.01)",
    )
    command.add_argument(
        "--insecure-local",
        action="store_true",
        help="use a Ray cluster on this machine whose job API answers without a token",
    )
    stages = ", ".join(STAGE_NAMES)
    command.add_argument(
        "--until",
        metavar="STAGE",
        help=f"stop after this stage, its last epoch included ({stages})",
    )


def _add_json(command: argparse.ArgumentParser) -> None:
    command.add_argument("--json", action="store_true", help="print JSON, for programs")


def _add_config(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--config", metavar="FILE", help="YAML file of settings, such as jobs/alpaca.yaml"
    )
    command.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="A.B=C",
        dest="settings",
        help="one setting over the file's; may be repeated",
    )


def _add_status(commands: Any) -> None:
    command = _command(
        commands,
        "status",
        "show how far a run is, stage by stage",
        "examples:\n  poolscore status runs/mine\n  poolscore status runs/mine --verify\n",
    )
    command.add_argument("run_dir", metavar="DIR", help="run directory")
    command.add_argument(
        "--verify",
        action="store_true",
        help="hash every file of the run, its pool and its models again; exit code 1 if one of "
        "them is not what was recorded",
    )
    _add_proxy(command)
    _add_json(command)
    command.set_defaults(act=status)


def _add_select(commands: Any) -> None:
    command = _command(
        commands,
        "select",
        "select again from a run's stored scores, without a model",
        EXAMPLES_SELECT,
    )
    command.add_argument("run_dir", metavar="DIR", help="run directory with scores")
    size = command.add_mutually_exclusive_group(required=True)
    size.add_argument("--percent", metavar="P", help="percent of the scored training rows")
    size.add_argument("--rows", type=int, metavar="N", help="number of rows")
    size.add_argument("--tokens", type=int, metavar="N", help="token budget, prompt and response")
    command.add_argument(
        "--metric", default="lp_app_1", help="score column to order by (default: lp_app_1)"
    )
    command.add_argument(
        "--order",
        default="low",
        choices=("low", "mid", "high"),
        help="part of each cluster to take (default: low, the hardest)",
    )
    command.add_argument(
        "--rule",
        default="exact",
        choices=("exact", "reference"),
        help="exact percentages, or the published code's rounding (default: exact)",
    )
    command.add_argument(
        "--to",
        required=True,
        metavar="FILE",
        help=".jsonl for the pool's own lines, .parquet for the score columns and raw; missing "
        "folders are made",
    )
    command.add_argument(
        "--force",
        action="store_true",
        help="replace FILE where it is there; never one of the pool or the run",
    )
    _add_proxy(command)
    command.set_defaults(act=select)


def _add_settings(commands: Any) -> None:
    command = _command(
        commands,
        "settings",
        "print every setting with its meaning and its value, as YAML to edit",
        EXAMPLES_SETTINGS,
    )
    command.add_argument("section", nargs="?", metavar="SECTION", help="one section, as finetune")
    _add_config(command)
    command.set_defaults(act=settings)


def _add_completion(commands: Any) -> None:
    command = _command(
        commands,
        "completion",
        "print what a shell needs to complete poolscore's commands and options",
        EXAMPLES_COMPLETION,
    )
    command.add_argument("shell", choices=("bash", "zsh"), help="which shell")
    command.set_defaults(act=completion)


def _add_convert(commands: Any) -> None:
    command = _command(
        commands,
        "convert",
        "make safetensors of a .bin checkpoint, once, without running what it may hold",
        EXAMPLES_CONVERT,
    )
    command.add_argument(
        "checkpoint",
        metavar="MODEL",
        help="folder with pytorch_model.bin (or shards and their index), the file itself, or a hub "
        "id, whose .bin files are fetched",
    )
    command.add_argument(
        "--to",
        metavar="FOLDER",
        help="folder to make (default: MODEL-safetensors beside it; of a hub id in models/)",
    )
    command.add_argument(
        "--revision",
        metavar="COMMIT",
        help="which commit, branch or tag of the hub model (default: what its main branch holds)",
    )
    command.set_defaults(act=convert)


def _add_proxy(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--proxy",
        metavar="NAME",
        help="which proxy's part of the run, where several were scored (default: the latest)",
    )


def plan(options: argparse.Namespace) -> None:
    """``poolscore plan``"""
    config = _config(options)
    from engine.as_json import plan_json
    from engine.estimate import estimate
    from engine.plan_table import table

    found = estimate(config, options.run_dir, options.until)
    if options.json:
        print(plan_json(found))
        return
    print(table(found))
    where = [] if options.run_dir else ["--run-dir", "runs/mine"]
    print(f"To run it: poolscore {shlex.join(['run', *options.words[1:], *where])}")


def run(options: argparse.Namespace) -> None:
    """``poolscore run``"""
    config = _config(options)
    from engine import pipeline
    from engine.results import open_run
    from engine.summary import summary

    warn = partial(print, file=sys.stderr) if options.quiet else None
    with _quiet() if options.quiet else nullcontext():
        pipeline.run(config, options.run_dir, options.until, options.rebuild, warn=warn)
        print(summary(open_run(options.run_dir), show_texts=sys.stdout.isatty()))


@contextmanager
def _quiet() -> Iterator[None]:
    """Let nothing through to the standard output."""
    with Path(os.devnull).open("w") as nowhere, redirect_stdout(nowhere):
        yield


def _config(options: argparse.Namespace) -> Config:
    settings = list(options.settings)
    if options.max_reject_fraction is not None:
        settings.append(f"pool.max_reject_fraction={options.max_reject_fraction}")
    if options.insecure_local:
        settings.append("resources.insecure_local=true")
    config = Config.load(options.config, settings)
    return config.override(pool={"paths": options.pool}) if options.pool else config


def status(options: argparse.Namespace) -> None:
    """``poolscore status``"""
    from engine.as_json import status_json
    from engine.results import open_run
    from engine.summary import status_table

    opened = open_run(options.run_dir, options.proxy)
    found = opened.status(options.verify)
    print(status_json(opened, found) if options.json else status_table(found))
    if options.verify and not found.is_as_recorded:
        raise RunDirError("the run, or what it was made from, is not as it was recorded")
    if options.verify and not options.json:
        num = sum(len(stage.record.files) for stage in found.stages if stage.record)
        print(f"\nverified: {num:,} files of the run, its pool and its models are as recorded")


def select(options: argparse.Namespace) -> None:
    """``poolscore select``"""
    from engine import sanity
    from engine.results import open_run
    from engine.targets import refuse_suffix

    target = Path(options.to)
    refuse_suffix(target)
    wanted = {
        key: getattr(options, key)
        for key in ("percent", "rows", "tokens", "metric", "order", "rule")
        if getattr(options, key) is not None
    }
    config: SelectConfig = Config.from_tree({"select": wanted}, "the command line").select
    finished = open_run(options.run_dir, options.proxy)
    chosen = finished.select(config, target, options.force)
    print(f"{chosen.num_selected:,} of {chosen.num_candidates:,} scored rows → {target}")
    for text in sanity.cautions(finished.records().values()):
        print(terminal.warning(text))


def settings(options: argparse.Namespace) -> None:
    """``poolscore settings``"""
    from engine.settings_text import settings_yaml

    config = Config.load(options.config, options.settings)
    print(settings_yaml(config, options.section), end="")


def completion(options: argparse.Namespace) -> None:
    """``poolscore completion``"""
    import shtab

    print(shtab.complete(parser(), options.shell), end="")


def convert(options: argparse.Namespace) -> None:
    """``poolscore convert``"""
    from engine.conversion import convert as make

    folder = make(options.checkpoint, options.revision, options.to)
    print(f"{options.checkpoint} → {folder}")
    print(f"To use it: --set proxy.model={shlex.quote(str(folder))}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; errors that a person can mend come without a traceback.

    Returns:
        Exit code: 0, 1 after an error, 128 and its number after a signal.
    """
    words = sys.argv[1:] if arguments is None else list(arguments)
    terminal.speak_its_charset(sys.stdout, sys.stderr)
    with interrupts.stopping(for_good=True):
        try:
            _refuse_unwritable(words)
            options = parser().parse_args(words, argparse.Namespace(words=words))
            options.act(options)
            sys.stdout.flush()  # whatever is wrong with it shows here, not when Python ends
        except interrupts.Stopped as stopped:
            told = str(stopped) if _has_runs(words) else str(stopped).partition(";")[0]
            terminal.tell(sys.stderr, f"\n{told}")
            terminal.tell(sys.stdout)
            return stopped.code
        except BrokenPipeError:  # `poolscore status … | head`: whoever read has had enough
            terminal.silence(sys.stdout)
            return 128 + signal.SIGPIPE
        except PoolscoreError as error:
            terminal.tell(sys.stderr, f"error: {terminal.lines(str(error))}")
            return 1
    return 0


def _has_runs(words: Sequence[str]) -> bool:
    """Whether it is about a command that goes on where it was."""
    return words[:1] == ["run"]


def _refuse_unwritable(words: Sequence[str]) -> None:
    for word in words:
        try:
            fits = "\0" not in word and word.encode()
        except UnicodeEncodeError:  # bytes that are no UTF-8 arrive as lone surrogates
            fits = False
        if fits is False:
            raise ConfigError(
                f"{terminal.plain(word)!r} on the command line is not valid UTF-8, or holds a null "
                "byte.\nRename the file, or set LC_ALL=C.UTF-8 where the name is not at fault."
            )
