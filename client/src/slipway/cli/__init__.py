"""The `slipway` command: says what exists, and nothing about how it works."""

from __future__ import annotations

import io
import sys
from typing import Annotated

import typer

from slipway._version import __version__
from slipway.cli import (
    access,
    aliasing,
    carrying,
    deployments,
    gates,
    keeping,
    licences,
    lineage,
    people,
    pushing,
    reading,
    rollouts,
    running,
    scores,
    serving,
    signatures,
    trails,
    varying,
    versioning,
)
from slipway.cli.doctor import doctor
from slipway.cli.screen import examples

app = typer.Typer(
    name="slipway",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=examples(
        "slipway login --url https://models.example.org",
        "slipway push digits.onnx --name digits --watch",
        "slipway pull digits@latest",
    )
    + """

[bold]Exit codes[/bold]
  0  done                          5  not found
  1  failed                        6  conflict
  2  usage                         7  rate limit
  3  a gate or a scan said no      8  server or network
  4  not allowed                 124  timeout: the run goes on
                                 130  Ctrl-C: a run goes on

[bold]Environment[/bold]
SLIPWAY_URL, SLIPWAY_TOKEN, SLIPWAY_SERVING_URL, SLIPWAY_CONFIG (a file), NO_COLOR""",
)


def _version(wanted: bool) -> None:
    if wanted:
        sys.stdout.write(f"slipway-client {__version__}\n")
        raise typer.Exit


@app.callback()
def slipway(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the client's version.")
    ] = False,
) -> None:
    """Push a model down the slipway, watch it, and pull what was promoted."""


_START, _RUNS, _REGISTRY, _LIVE = "Start here", "Runs", "Models", "Going live"
_PEOPLE = "People, for owners and admins"

app.command(
    rich_help_panel=_START,
    epilog=examples(
        "slipway login --url https://models.example.org -u ada",
        "slipway login --token-stdin < admin.key",
    ),
)(access.login)
app.command(
    rich_help_panel=_START,
    epilog=examples(
        "slipway push digits.onnx --name digits --watch",
        "slipway push net.pt --name digits --bump minor --input-shape 1,1,8,8 --classes @classes.txt",
        "RUN=$(slipway push digits.onnx -n digits -q) && slipway watch $RUN --timeout 600",
    ),
)(pushing.push)
app.command(rich_help_panel=_START, epilog=examples("slipway doctor", "slipway doctor --json"))(doctor)
app.command(
    rich_help_panel=_RUNS,
    epilog=examples("slipway runs --status rejected", "slipway runs --model digits -q", "slipway runs RUN --json"),
)(running.runs)
app.command(
    rich_help_panel=_RUNS,
    epilog=examples("slipway watch RUN", "slipway watch RUN --timeout 600", "slipway watch RUN --json | jq .kind"),
)(running.watch)
app.command(
    rich_help_panel=_RUNS,
    epilog=examples("slipway logs RUN", "slipway logs RUN convert --attempt 1"),
)(running.logs)
app.command(rich_help_panel=_RUNS, epilog=examples("slipway cancel RUN"))(running.cancel)
app.command(
    rich_help_panel=_RUNS,
    epilog=examples("slipway retry RUN --watch", "slipway retry RUN --from convert"),
)(running.retry)
app.command(
    rich_help_panel=_REGISTRY,
    epilog=examples("slipway show digits", "slipway show digits@1.0.0", "slipway show digits@latest --json"),
)(reading.show)
app.command(
    rich_help_panel=_REGISTRY,
    epilog=examples(
        "slipway pull digits",
        "slipway pull digits@1.0.0 --artifact onnx-int8-dynamic -o models/",
        "slipway pull digits@1.0.0 -a source -o digits.pt",
    ),
)(reading.pull)
app.command(
    rich_help_panel=_REGISTRY,
    epilog=examples("slipway rebuild digits@1.0.0 --watch", "slipway rebuild digits --watch -q"),
)(varying.rebuild)
app.command(
    rich_help_panel=_REGISTRY,
    epilog=examples(
        "slipway compare digits@1.0.0 digits@2.0.0",
        "slipway compare digits@production digits@latest grace/digits@default --json",
    ),
)(versioning.compare)
app.command(
    rich_help_panel=_REGISTRY,
    epilog=examples(
        'slipway promote digits@1.1.0 production --reason "0.4 % more accurate"',
        "slipway promote digits@champion production --expected 1.0.0 -r 'won the trial'",
    ),
)(aliasing.promote)
app.command(rich_help_panel=_REGISTRY, epilog=examples("slipway activate digits@1.1.0"))(aliasing.activate)
app.command(
    rich_help_panel=_REGISTRY,
    epilog=examples("slipway status digits@1.0.0 deprecated --reason '1.1.0 is better on every class'"),
)(versioning.status)
app.command(
    rich_help_panel=_REGISTRY,
    epilog=examples("slipway note digits@1.1.0 'Sees rotated digits.'", "slipway note digits@1.1.0 @NOTES.md"),
)(versioning.note)
app.add_typer(
    aliasing.alias,
    name="alias",
    rich_help_panel=_REGISTRY,
    epilog=examples(
        "slipway alias list digits",
        "slipway alias history digits production",
        "slipway alias at digits production 2026-05-03",
        "slipway alias remove digits champion",
    ),
)
app.add_typer(
    versioning.metrics,
    name="metrics",
    rich_help_panel=_REGISTRY,
    epilog=examples(
        "slipway metrics add digits@1.1.0 accuracy=0.95 f1=0.94 --dataset digits-test",
        "slipway metrics list digits@1.1.0 --name accuracy",
    ),
)
app.add_typer(
    varying.variant,
    name="variant",
    rich_help_panel=_REGISTRY,
    epilog=examples(
        "slipway variant add digits@1.0.0 onnx-int8-dynamic --watch",
        "slipway variant pin digits@1.0.0 onnx-fp32",
        "slipway variant unpin digits@1.0.0 --device sm90",
    ),
)
app.command(
    name="why-not",
    rich_help_panel=_LIVE,
    epilog=examples("slipway why-not digits@1.1.0 production", "slipway why-not digits staging --json"),
)(gates.why_not)
app.command(
    rich_help_panel=_LIVE,
    epilog=examples(
        "slipway approve digits@1.1.0 production -m 'looked at the hold-out set'",
        "slipway approve digits@1.1.0 production --revoke",
    ),
)(gates.approve)
app.add_typer(
    gates.gates,
    name="gates",
    rich_help_panel=_LIVE,
    epilog=examples(
        "slipway gates add p99_below ms=4 --model digits --target production",
        "slipway gates list digits",
        "slipway gates rules",
    ),
)
app.command(
    rich_help_panel=_LIVE,
    epilog=examples(
        "slipway deploy digits@1.1.0 --to staging",
        "slipway deploy digits@1.1.0 --to production --config @production.json --reason 'better on 3 and 8'",
    ),
)(deployments.deploy)
app.command(
    rich_help_panel=_LIVE,
    epilog=examples("slipway deployments", "slipway deployments digits --target production --all"),
)(deployments.deployments)
app.command(
    rich_help_panel=_LIVE,
    epilog=examples("slipway undeploy digits --target staging --reason 'the trial is over'"),
)(deployments.undeploy)
app.command(
    rich_help_panel=_LIVE,
    epilog=examples(
        "slipway rollback digits production --reason 'wrong on rotated scans'",
        "slipway rollback digits --target production --reason 'confuses 3 and 8'",
    ),
)(deployments.rollback)
app.add_typer(
    rollouts.rollout,
    name="rollout",
    rich_help_panel=_LIVE,
    epilog=examples(
        "slipway rollout start digits@1.1.0 --to production --weight 0.05 latency_ms=250",
        "slipway rollout show digits",
        "slipway rollout stop digits --reason 'the new cameras are late'",
    ),
)
app.command(
    rich_help_panel=_LIVE,
    epilog=examples("slipway feedback PREDICTION --right", "slipway feedback PREDICTION --label seven"),
)(rollouts.feedback)
app.command(
    rich_help_panel=_LIVE,
    epilog=examples(
        "slipway predict digits -i three.png",
        "slipway predict digits@staging -i rows.npz -o answers.npz",
        "echo '[[0, 1, 2, 3]]' | slipway predict ada/digits -i - --json",
    ),
)(serving.predict)
app.command(
    rich_help_panel=_LIVE,
    epilog=examples("slipway snippet digits", "slipway snippet digits@1.1.0 --lang triton > ask.py"),
)(serving.snippet)
app.command(
    rich_help_panel=_LIVE,
    epilog=examples(
        "slipway endpoint digits", "slipway endpoint digits --rpm 120 --timeout 2", "slipway endpoint digits --public"
    ),
)(serving.endpoint)
app.command(
    rich_help_panel=_LIVE,
    epilog=examples("slipway signatures digits@1.1.0", "slipway signatures digits@1.1.0 --json"),
)(signatures.signatures)
app.add_typer(
    access.keys,
    name="keys",
    rich_help_panel=_START,
    epilog=examples("slipway keys create ci --days 90", "slipway keys list", "slipway keys revoke ci"),
)


app.command(
    rich_help_panel=_REGISTRY,
    epilog=examples("slipway lineage digits@1.0.0", "slipway lineage base@2.1.0 --direction down --depth 2"),
)(lineage.lineage)
app.add_typer(
    lineage.parents,
    name="parent",
    rich_help_panel=_REGISTRY,
    epilog=examples(
        "slipway parent add digits@1.1.0 grace/base@2.1.0 --relation fine-tuned-from",
        "slipway parent add digits@1.1.0 https://huggingface.co/datasets/org/digits -r dataset",
        "slipway parent remove digits@1.1.0 EDGE",
    ),
)
app.add_typer(
    licences.licence,
    name="licence",
    rich_help_panel=_REGISTRY,
    epilog=examples(
        "slipway licence check digits --licence GPL-3.0-only",
        "slipway licence check digits --text LICENSE && make release",
        "slipway licence check digits@1.0.0 --github https://github.com/ada/sorter",
    ),
)
app.command(rich_help_panel=_REGISTRY, epilog=examples("slipway score digits@1.0.0", "slipway score digits -q"))(
    scores.score
)


app.command(rich_help_panel=_START, epilog=examples("slipway logout", "slipway logout --everywhere"))(access.logout)
app.command(
    rich_help_panel=_PEOPLE,
    epilog=examples("slipway grant digits grace download", "slipway grant digits grace upload --days 30"),
)(people.grant)
app.command(rich_help_panel=_PEOPLE, epilog=examples("slipway revoke digits grace download"))(people.revoke)
app.command(rich_help_panel=_PEOPLE, epilog=examples("slipway grants digits"))(people.grants)
app.add_typer(
    people.users,
    name="users",
    rich_help_panel=_PEOPLE,
    epilog=examples(
        "slipway users add grace --role engineer",
        "slipway users set grace --inactive",
        "slipway users delete grace --models to:ada",
    ),
)
app.add_typer(
    people.roles,
    name="roles",
    rich_help_panel=_PEOPLE,
    epilog=examples("slipway roles list", "slipway roles set trainer models:read models:upload"),
)
app.command(
    rich_help_panel=_PEOPLE,
    epilog=examples(
        "slipway audit --actor grace --since 7d", "slipway audit --action grant.given", "slipway audit --check"
    ),
)(trails.audit)
app.command(
    name="server-logs",
    rich_help_panel=_PEOPLE,
    epilog=examples("slipway server-logs --level error --since 12h", "slipway server-logs --trace 4bf92f3577b34da6"),
)(trails.server_logs)


app.command(
    rich_help_panel=_REGISTRY,
    epilog=examples("slipway get digits@1.0.0 weights config -o digits/", "slipway get digits full -o everything/"),
)(carrying.get)
app.command(
    "usage",
    rich_help_panel=_REGISTRY,
    epilog=examples("slipway usage digits --days 7", "slipway usage"),
)(carrying.used)
app.command(
    rich_help_panel=_REGISTRY,
    epilog=examples("slipway export digits@1.0.0", "slipway export digits@1.0.0 -o digits.slipway.zip"),
)(carrying.export)
app.command(
    "export-triton",
    rich_help_panel=_REGISTRY,
    epilog=examples("slipway export-triton digits@1.0.0 -o model_repository", "slipway export-triton digits --s3"),
)(carrying.export_triton)
app.command(
    "export-kserve",
    rich_help_panel=_REGISTRY,
    epilog=examples(
        "slipway export-kserve digits@1.0.0 | kubectl apply -f -",
        "slipway export-kserve digits --storage-uri s3://models/digits",
    ),
)(carrying.export_kserve)
app.command(
    "import",
    rich_help_panel=_REGISTRY,
    epilog=examples(
        "slipway import digits-1.0.0.slipway.zip --watch",
        "slipway import digits-1.0.0.slipway.zip --name digits-of-theirs --key PUBLIC_KEY",
    ),
)(carrying.bring)
app.add_typer(
    carrying.verify,
    name="verify",
    rich_help_panel=_REGISTRY,
    epilog=examples("slipway verify bundle digits-1.0.0.slipway.zip --key PUBLIC_KEY"),
)


app.command(
    rich_help_panel=_REGISTRY,
    epilog=examples(
        "slipway models",
        "slipway models digits --type classification",
        "slipway models --search 'digits or faces' --tag edge --sort rating",
        "slipway models --deleted",
    ),
)(keeping.models)
app.add_typer(
    keeping.model,
    name="model",
    rich_help_panel=_REGISTRY,
    epilog=examples(
        "slipway model create digits --licence Apache-2.0 --tag demo",
        "slipway model change digits --card README.md --public",
        "slipway model delete digits@1.0.0",
        "slipway model restore digits",
    ),
)
app.command(
    rich_help_panel=_REGISTRY,
    epilog=examples("slipway rate ada/digits 5 --review 'Right even on my handwriting.'", "slipway rate ada/digits"),
)(keeping.rate)


def main() -> None:
    """Run the command."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal without × and → shows ?, and no traceback
    app(prog_name="slipway")
