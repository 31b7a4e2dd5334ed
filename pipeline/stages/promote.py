"""Let a version into the registry: gates over the evidence, digests checked, a signed manifest, and only then visible.

The last step of every plan that publishes. What it copies stays invisible until the transaction that ends the run names
it. A variant that comes later passes the same gates and has a manifest of its own.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from pipeline import selection
from pipeline.errors import Rejected
from pipeline.reading import read
from pipeline.stage import Context, File, Json, Passage, Report, Stage, servable

PUBLISHED_ROLES = ("canonical", "variant", "sample", "evidence")


@dataclass(frozen=True, kw_only=True)
class Gate:
    """A rule over what the earlier steps reported. `missing` says what is not shown, or None when all is well."""

    name: str
    missing: Callable[[Mapping[str, Passage]], str | None]
    servable_only: bool = True


def _scan_clean(earlier: Mapping[str, Passage]) -> str | None:
    verdict = earlier["scan"].facts.get("verdict") if "scan" in earlier else None
    return None if verdict == "clean" else f"the scan's verdict is {verdict}"


def _verified(earlier: Mapping[str, Passage]) -> str | None:
    if "convert" not in earlier:
        return "no conversion was made"
    verification = earlier["convert"].facts.get("verification") or {}
    if verification.get("verified") is not True:
        return f"the conversion is not verified: {verification.get('reason')}"
    made = [variant for passage in earlier.values() for variant in passage.facts.get("variants", ())]
    verified = {variant["name"] for variant in made if variant.get("verified") is True and not variant.get("withheld")}
    doubtful = [variant_name(file) for file in _servable_files(earlier) if file.role == "variant"]
    doubtful = [name for name in doubtful if name not in verified]
    return f"no verification of {', '.join(doubtful)}" if doubtful else None


def _benchmarked(earlier: Mapping[str, Passage]) -> str | None:
    measured = {row["name"] for passage in earlier.values() for row in passage.facts.get("rows", ())}
    if not measured:
        return "no benchmark was made"
    unmeasured = [name for name in (variant_name(file) for file in _servable_files(earlier)) if name not in measured]
    return f"no measurement of {', '.join(unmeasured)}" if unmeasured else None


GATES = (
    Gate(name="scan_clean", missing=_scan_clean, servable_only=False),
    Gate(name="verified", missing=_verified),
    Gate(name="benchmarked", missing=_benchmarked),
)


def run(ctx: Context) -> Report:
    """Raises `Rejected`: `gate_failed` with the list of what is missing, `converted_unclean` for what our converter wrote.

    Where a version that is published already was to get more variants: `nothing_added`, `variant_exists`.
    """
    added = _added(ctx)
    gates = [_judge(gate, ctx.earlier) for gate in GATES if servable(ctx.earlier) or not gate.servable_only]
    gates.append(_reviewers_agree(ctx))
    _pass(ctx, "gate_failed", gates)
    gates.append(_outputs_clean(ctx))
    _pass(ctx, "converted_unclean", gates, known=len(gates) - 1)

    published = [_entry(file, ctx.publisher.publish(file)) for file in _publishable(ctx.earlier)]
    chosen = _best(ctx.earlier, published)
    name = f"manifest+{'+'.join(added)}.json" if added else "manifest.json"
    document = _manifest(ctx, gates, published, chosen)
    manifest = ctx.publisher.write(name, document, "application/json")
    published.append(_entry(manifest, manifest.key))
    ctx.log(f"published {len(published)} files, manifest sha256 {manifest.sha256}")
    return Report(
        facts={
            "published": published,
            "servable": servable(ctx.earlier),
            "best": chosen,
            "manifest": {"sha256": manifest.sha256, "signature": dict(ctx.publisher.sign(document))},
            "gates": gates,
        }
    )


def _added(ctx: Context) -> list[str]:
    """The names of what comes to a published version; none where the version is being let in."""
    if all(passage.own for passage in ctx.earlier.values()):
        return []
    added = sorted(variant_name(file) for file in _servable_files(ctx.earlier))
    if not added:
        made = [each for passage in ctx.earlier.values() if passage.own for each in passage.facts.get("variants", ())]
        why = "; ".join(f"{each['name']}: {each['reason']}" for each in made)
        raise Rejected("nothing_added", f"None of the variants may be published. {why}".rstrip())
    there = sorted({each["name"] for each in ctx.options["recorded"]}.intersection(added))
    if there:
        raise Rejected("variant_exists", f"The version has {', '.join(there)} already; artifacts never change.")
    return added


def _pass(ctx: Context, code: str, gates: list[dict[str, Json]], *, known: int = 0) -> None:
    """Raises `Rejected(code)` where one of the gates is shut; the first `known` have been told of before."""
    for gate in gates[known:]:
        ctx.log(f"gate {gate['gate']}: {'passed' if gate['passed'] else gate['reason']}")
    missing = [f"{gate['gate']}: {gate['reason']}" for gate in gates if not gate["passed"]]
    if missing:
        raise Rejected(code, f"Not promoted; missing evidence: {'; '.join(missing)}.", gates=gates, missing=missing)


def _reviewers_agree(ctx: Context) -> dict[str, Json]:
    """What reviewers decided while the run went on counts too: a condemned file, a waiver that is over."""
    facts = ctx.earlier["scan"].facts if "scan" in ctx.earlier else {}
    files = {ctx.upload.sha256, *(file["sha256"] for file in facts.get("files", ()))}
    counting = {(waiver.sha256, waiver.rule) for waiver in ctx.reviews.waivers(files)}
    waived = {(stop["sha256"], stop["rule"]) for stop in facts.get("stops", ()) if stop["waived"]}
    over = sorted(rule for _, rule in waived - counting)
    reason = "; ".join(
        [
            *("a reviewer has condemned a file of it" for _ in ctx.reviews.condemned(files)),
            *(f"the waiver of {rule} counts no longer" for rule in over),
        ]
    )
    return {"gate": "reviewers_agree", "passed": not reason, "reason": reason or None}


def _outputs_clean(ctx: Context) -> dict[str, Json]:
    """Read every file that is about to be published as if a stranger had sent it. `evidence`: what each was found to be."""
    evidence = []
    for file in _publishable(ctx.earlier):
        answer = read(ctx, file.name, ctx.fetch(file))
        evidence.append(
            {
                "name": variant_name(file),
                "sha256": file.sha256,
                **{key: answer[key] for key in ("verdict", "findings", "bytes", "ruleset")},
            }
        )
    unclean = [
        f"{each['name']} is {each['verdict']} ({', '.join(finding['rule'] for finding in each['findings'])})"
        for each in evidence
        if each["verdict"] != "clean"
    ]
    return {
        "gate": "outputs_clean",
        "passed": not unclean,
        "reason": "; ".join(unclean) or None,
        "evidence": evidence,
    }


def variant_name(file: File) -> str:
    """The name a file goes by in the registry: its variant's, or its own."""
    return str(file.meta.get("variant", file.name))


def _judge(gate: Gate, earlier: Mapping[str, Passage]) -> dict[str, Json]:
    reason = gate.missing(earlier)
    return {"gate": gate.name, "passed": reason is None, "reason": reason}


def _publishable(earlier: Mapping[str, Passage]) -> list[File]:
    made = (file for passage in earlier.values() if passage.own for file in passage.files)
    return [file for file in made if file.role in PUBLISHED_ROLES]


def _servable_files(earlier: Mapping[str, Passage]) -> list[File]:
    return [file for file in _publishable(earlier) if file.role in ("canonical", "variant")]


def _entry(file: File, key: str) -> dict[str, Json]:
    return {
        "name": variant_name(file),
        "role": file.role,
        "key": key,
        "sha256": file.sha256,
        "size": file.size,
        "media_type": file.media_type,
        "meta": dict(file.meta),
    }


def _best(earlier: Mapping[str, Passage], published: list[dict[str, Json]]) -> dict[str, str]:
    """The form to serve by kind of device, for those that something was measured on."""
    names = [entry["name"] for entry in published if entry["role"] in ("canonical", "variant")]
    variants = [each for passage in earlier.values() for each in passage.facts.get("variants", ())]
    rows = [each for passage in earlier.values() for each in passage.facts.get("rows", ())]
    devices = dict.fromkeys(each.get("device", selection.CPU) for each in rows)
    chosen = {device: selection.best(names, variants, rows, device=device) for device in devices}
    return {device: name for device, name in chosen.items() if name is not None}


def _manifest(
    ctx: Context, gates: list[dict[str, Json]], published: list[dict[str, Json]], chosen: dict[str, str]
) -> bytes:
    """What was let in and why, as canonical JSON: same evidence, same bytes.

    What another instance told of the version is named too: it is kept beside what was made here.
    """
    kept = published if ctx.upload.origin is None else [*published, dict(ctx.upload.origin)]
    document = {
        "manifest": 1,
        "model": ctx.upload.model,
        "version": ctx.upload.version,
        "source": {
            "filename": ctx.upload.filename,
            "sha256": ctx.upload.sha256,
            "size": ctx.upload.size,
            "format": ctx.upload.format,
        },
        "artifacts": [{key: entry[key] for key in ("name", "role", "sha256", "size", "meta")} for entry in kept],
        "best": chosen,
        "gates": gates,
        "evidence": {stage: dict(passage.facts) for stage, passage in ctx.earlier.items()},
    }
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


STAGE = Stage(
    name="promote",
    run=run,
    queue="default",
    after=("scan", "validate", "convert", "optimize", "tensorrt", "benchmark"),
    max_attempts=5,
)
