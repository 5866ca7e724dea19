"""The command line: loads a verb when it is named, and prints a user's mistake as one line."""

import contextlib
import errno
import importlib
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import click

from ssl_app import config, console, environment, registry
from ssl_app.errors import SettingsError, UserError, nearest
from ssl_app.runs import DISK_FULL, name_the_disk
from ssl_app.training import signals

# of a disk that fails, a share that is gone, a limit of the system or of the shell (ulimit)
MACHINE = (
    errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.ENOTCONN, errno.EFBIG, errno.EMFILE, errno.ENFILE, errno.ENODEV,
    errno.ENXIO, errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENOMEM,
)  # fmt: skip
ADVISING = ("doctor",)  # verbs that name flags of others
EPILOG = """\b
Two commands on built-in data:
  ssl-app pretrain
  ssl-app finetune --strategy two-stage --per-class 32
and on images of your own:
  ssl-app pretrain --data all.csv --group patient
  ssl-app sweep --per-class 1,2,4,8,16,32,64"""


class Verb(click.Command):
    """One verb: its flags are the fields of its Settings, and of what its flags name (`--method sela`)."""

    def __init__(self, name: str) -> None:
        self.module: Any = importlib.import_module(f"ssl_app.commands.{name}")
        document = (self.module.__doc__ or "").strip()
        examples = getattr(self.module, "EXAMPLES", "").strip()
        super().__init__(
            name,
            params=_parameters(self.module.Settings),
            help=document + (f"\n\n\b\nExamples:\n{_indent(examples)}" if examples else ""),
            short_help=document.splitlines()[0],
            context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
        )
        self.params += [
            click.Option(
                ["--recipe"],
                type=click.Path(path_type=Path),
                metavar="FILE",
                help="TOML file that fills in flags",
            ),
            click.Option(["--json", "as_json"], is_flag=True, help="print the result as JSON on stdout"),
        ]

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse once what is known, let the verb say which settings join, then parse all."""
        joined = self._joined(args)
        if joined is not None:
            self.params = self.params + _parameters(joined)
        ctx.obj = joined
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> None:
        """Build the settings, run the verb, print the result where it is wanted."""
        given = dict(ctx.params)
        path, as_json, joined = given.pop("recipe"), given.pop("as_json"), ctx.obj
        recipe = self._recipe(path)
        known = {field.name for kind in (self.module.Settings, joined) if kind for field in config.fields(kind)}
        if path is not None:
            config.refuse_unknown(recipe, known, path)
        if self.name not in ADVISING:
            config.flag.known = frozenset(known)
        settings = config.build(self.module.Settings, given, recipe)
        extra = () if joined is None else (config.build(joined, given, recipe),)
        with contextlib.redirect_stdout(sys.stderr) if as_json else contextlib.nullcontext():
            result = self.module.run(settings, *extra)  # whatever is printed inside: stdout holds the object alone
        if as_json and result is not None:
            click.echo(json.dumps(result.to_json(), default=str))

    def _recipe(self, path: Path | None) -> config.Values:
        return {} if path is None else config.load_recipe(path, str(self.name), registry.names("commands"))

    def _joined(self, args: list[str]) -> type | None:
        """The dataclass of further flags that the verb's own flags ask for, found before they are parsed."""
        if not hasattr(self.module, "joined"):
            return None
        values: config.Values = {}
        for position, word in enumerate(args):
            if word.startswith("--"):
                name, equals, value = word[2:].partition("=")
                values[name.replace("-", "_")] = value if equals else next(iter(args[position + 1 :]), "")
        recipe = self._recipe(Path(values["recipe"])) if values.get("recipe") else {}
        joined: type | None = self.module.joined(recipe | values)
        return joined


def _parameters(settings: type) -> list[click.Parameter]:
    """Click's parameters for a Settings class; every default is None, so that a recipe can fill in."""
    parameters: list[click.Parameter] = []
    for field in config.fields(settings):
        if field.argument:
            required, name = field.default in (None, ""), field.name.upper()
            parameters.append(
                click.Argument([field.name], required=required, metavar=name if required else f"[{name}]")
            )
            continue
        default = field.default
        text = ",".join(map(str, default)) if isinstance(default, tuple) else str(default)
        shown = text if default not in (None, ()) and field.kind is not bool else None
        yes_or_no = field.kind is bool
        parameters.append(
            click.Option(
                [f"{field.flag}/--no-{field.flag[2:]}" if yes_or_no else field.flag, field.name],
                help=field.help + (f"  [{'|'.join(field.choices)}]" if field.choices else ""),
                default=None,
                show_default=shown or False,
                multiple=field.repeat,
                type=bool if yes_or_no else str,
                metavar=None if yes_or_no else field.metavar or {int: "N", float: "X"}.get(field.kind, "TEXT"),
            )
        )
    return parameters


def _indent(text: str) -> str:
    return "\n".join(f"  {line}" for line in text.splitlines())


class Verbs(click.Group):
    """The verbs are the files of ssl_app/commands; one is imported when it is used, none for --help."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Every verb's name."""
        return registry.names("commands")

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The verb of that name. Raises SettingsError with the nearest one."""
        if cmd_name not in self.list_commands(ctx):
            raise SettingsError(f"no verb is named '{cmd_name}'{nearest(cmd_name, self.list_commands(ctx))}")
        return Verb(cmd_name)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The verbs with their first lines, read without importing them."""
        rows = [(name, registry.describe("commands", name)) for name in self.list_commands(ctx)]
        with formatter.section("Verbs"):
            formatter.write_dl(rows)


@click.group(
    cls=Verbs,
    epilog=EPILOG,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
@click.version_option(package_name="ssl-app")
def cli() -> None:
    """Pretrain on your own unlabeled images, transfer to few labels, and learn what it was worth."""


def main(arguments: list[str] | None = None) -> None:
    """Run one command line and exit: 0 done, 2 the user's mistake, 1 ours."""
    environment.prepare_environment()
    console.show_messages()
    code: Any
    try:
        with signals.stops_raise():
            code = cli.main(arguments, prog_name="ssl-app", standalone_mode=False)
    except signals.Stopped as stopped:
        code = _say_stopped(stopped)
    except (KeyboardInterrupt, click.exceptions.Abort):
        code = _say_stopped(signals.Stopped(signal.SIGINT))
    except Exception as error:
        number = signals.received()
        code = _refused(error) if number is None else _say_stopped(signals.Stopped(number))
    finally:
        config.flag.known = None
    sys.exit(code if isinstance(code, int) else 0)


def _say_stopped(stopped: signals.Stopped) -> int:
    """Say that a signal ended the work, and what its notes say of going on. -> the exit code."""
    if os.environ.get("RANK", "0") == "0":
        click.echo("; ".join(["stopped", *getattr(stopped, "__notes__", ())]), err=True)
    return int(str(stopped.code))


def _refused(error: Exception) -> int:
    """Say what the user can fix in one line. -> the exit code; raises what is a mistake of ours."""
    if isinstance(error, UserError):
        return _refuse(error.sentence(config.flag))
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        click.echo(error.format_message())
        return 0
    if isinstance(error, click.UsageError):
        return _refuse(_usage(error))
    if isinstance(error, OSError):
        name_the_disk(error)
        where = error.filename or "while writing"
        if error.errno in DISK_FULL:
            return _refuse(f"the disk is full ({where}); free some space and type the same again")
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            return _refuse(f"{where} may not be used ({error.strerror}); fix its permissions, or name another place")
        if error.errno == errno.ENAMETOOLONG:
            return _refuse(f"the name {str(where)[:40]}... is longer than a file's name may be; type a shorter one")
        if error.errno in MACHINE:
            return _refuse(f"{where} cannot be used now ({error.strerror}); fix that, and type the same again")
    raise error


def _usage(error: click.UsageError) -> str:
    """Click's refusal of a command line in our words, with what to type; its own differ from version to version."""
    path = error.ctx.command_path if error.ctx else "ssl-app"
    if isinstance(error, click.NoSuchOption):
        params = [] if error.ctx is None else error.ctx.command.params
        for one in params:
            if isinstance(one, click.Argument) and one.name == error.option_name.lstrip("-"):
                name = one.human_readable_name.strip("[]")
                return f"{path} takes {name} without a flag; type {path} {name}"
        known = [flag for p in params for flag in p.opts]
        near = nearest(error.option_name, known)
        cure = near if "did you mean" in near else f"; type {path} --help for those it has"
        return f"{path} has no flag {error.option_name}{cure}"
    if isinstance(error, click.MissingParameter) and error.param is not None:
        word = error.param.make_metavar(error.ctx) if error.ctx else str(error.param.name).upper()
        return f"{path} needs {word}; type {path} --help"
    if isinstance(error, click.BadOptionUsage):
        return f"{error.option_name} needs a value; give it one, or leave it out"
    return f"{error.format_message().rstrip('.')}; type {path} --help"


def _refuse(sentence: str) -> int:
    if os.environ.get("RANK", "0") != "0":
        time.sleep(10)  # process 0 says the same; torchrun ends all when one ends, so it must be the first
        return 2
    click.echo(f"error: {' '.join(sentence.split())}", err=True)
    return 2
