"""Export a bundle, and upload it: `python src/export.py push=hub hub_repo=USER/NAME` or `push=wandb`.

When something is missing, a key or the network, it is said, and the bundle stays where it is.
"""

import importlib.util
import re
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from catsweep.errors import ConfigError, ExportError
from catsweep.export import digests
from catsweep.export.bundle import run as export
from catsweep.records import in_short
from catsweep.runs import Bundle, RunDir
from catsweep.tracking import loggers
from catsweep.tracking.loggers import has_key, resolve_mode
from steady import printing

REPO = re.compile(r"[\w.-]+/[\w.-]+", re.ASCII)
REGISTRY = "wandb-registry-"  # how W&B's paths of registries begin
SAVE_DIR = "outputs"  # records of W&B go to its folder wandb, as those of all runs


def run(cfg: DictConfig) -> Path:
    """Export a run, see `catsweep.export.bundle.run`, and upload the bundle if `cfg.push` says where to."""
    check(cfg)
    folder = export(cfg)
    push(folder, cfg)
    return folder


def check(cfg: DictConfig) -> None:
    """Refuse a study, and a push that cannot work, by a `ConfigError`; say what one will lack that cannot work yet."""
    if (study := cfg.get("study")) is not None:
        raise ConfigError(
            f"An export takes a run and no study; got study={study}. Choose the best of a study first: "
            f"make best-model export STUDY={study}, or run=outputs/STUDY/NUMBER for another of its trials."
        )
    if cfg.push is None:
        return
    if cfg.push == "hub":
        repo = OmegaConf.select(cfg, "hub_repo")
        if not REPO.fullmatch(str(repo)):
            raise ConfigError(
                f"push=hub needs the repository to push to, hub_repo=USER/NAME (letters, digits, '-', '_', '.'); "
                f"got {repo!r}."
            )
        if importlib.util.find_spec("huggingface_hub") is None:
            raise ConfigError("push=hub needs the package huggingface_hub: pip install 'catsweep[hub]'.")
        missing = _missing_for_hub()
    else:
        if resolve_mode("auto") == "disabled":
            raise ConfigError("push=wandb, but W&B is switched off. Unset WANDB_MODE, or run `wandb enabled`.")
        missing = _missing_for_wandb()
    if missing:
        _say(f"push={cfg.push} will not reach its server: {missing}. The bundle is written all the same.")


def push(bundle: Path, cfg: DictConfig) -> None:
    """Upload a bundle as `check` has accepted it, and say where it went; an `ExportError` if it did not get there."""
    if cfg.push is None:
        return
    digests.verify(bundle)
    digests.refuse_links(sorted(bundle.rglob("*")), bundle)
    if cfg.push == "hub":
        _to_hub(bundle, str(cfg.hub_repo), bool(OmegaConf.select(cfg, "private", default=True)))
    else:
        _to_wandb(bundle, cfg)


def _missing_for_hub() -> str:
    import huggingface_hub

    if huggingface_hub.is_offline_mode():
        return "HF_HUB_OFFLINE is set; unset it"
    if huggingface_hub.get_token() is None:
        return "there is no token of Hugging Face; run `hf auth login` with one that may write, or set HF_TOKEN"
    return ""


def _missing_for_wandb() -> str:
    if resolve_mode("auto") == "online":
        return ""
    if has_key():
        return "W&B is offline; unset WANDB_MODE, or run `wandb online`"
    return "there is no key of W&B; run `wandb login`, or set WANDB_API_KEY"


def _to_hub(bundle: Path, repo: str, private: bool) -> None:
    by_hand = f"The bundle is whole, in {bundle}; to upload it later: hf upload {repo} {bundle}"
    if missing := _missing_for_hub():
        raise ExportError(f"{bundle.name} was not pushed to {repo}: {missing}. {by_hand}")
    import huggingface_hub

    api = huggingface_hub.HfApi()
    # The client raises what lies below it too: of httpx, of hf_xet, of the operating system. No root but Exception.
    try:
        url = api.create_repo(repo, private=private, repo_type="model", exist_ok=True)
        # A file of an earlier bundle there would belong to this one, which is then refused as changed.
        api.upload_folder(
            repo_id=repo, folder_path=bundle, repo_type="model", commit_message=f"catsweep: {bundle.name}",
            delete_patterns=[*Bundle.FILES],
        )  # fmt: skip
    except Exception as error:
        raise ExportError(
            f"{bundle.name} was not pushed to {repo}: {in_short(error).rstrip('.')}. A network, and a token that may "
            f"write to {repo}, are needed. {by_hand}"
        ) from error
    _say(f"Pushed {bundle} to {url}")


def _to_wandb(bundle: Path, cfg: DictConfig) -> None:
    import wandb

    facts = metadata(bundle)
    logger = loggers.wandb_logger(
        bundle, project=OmegaConf.select(cfg, "wandb_project") or "catsweep",
        entity=OmegaConf.select(cfg, "wandb_entity"), group=facts["study"], name=f"export {bundle.name}",
        job_type="export", save_dir=SAVE_DIR, system=False,
    )  # fmt: skip
    registry = OmegaConf.select(cfg, "wandb_registry")
    name, outcome = artifact_name(bundle.name), "failed"
    try:
        run = logger.experiment
        artifact = wandb.Artifact(name, type="model", metadata=facts)
        artifact.add_dir(str(bundle))
        run.log_artifact(artifact)
        run.summary.update(facts["scores"])
        if online := not run.offline:
            artifact.wait()  # the upload has happened, or fails here
        if online and registry is not None:
            run.link_artifact(artifact, target_path=registry_path(str(registry), name))
        where, outcome = run.url, "complete"
    except Exception as error:  # as above: wandb's, and those of what it is made of
        raise ExportError(
            f"{bundle.name} was not pushed to W&B: {in_short(error).rstrip('.')}. The bundle is whole, in {bundle}. A "
            f"network, and a key (`wandb login`), are needed; WANDB_MODE=offline records it for `make wandb-sync`."
        ) from error
    finally:
        loggers.finish([logger], outcome)
    if online:
        _say(f"Pushed {bundle} to {where}")
        return
    later = f" Linking it to the registry {registry} takes a connection: export again then." if registry else ""
    _say(
        f"Recorded {bundle} as a W&B artifact, offline: {_missing_for_wandb() or 'the server did not answer'}. "
        f"`make wandb-sync` then uploads it.{later}"
    )


def metadata(bundle: Path) -> dict[str, Any]:
    """Collect what is shown of a bundle without fetching it: scores, their intervals, cards, and where it came from."""
    metrics, provenance = RunDir(bundle).metrics(), RunDir(bundle).provenance()
    return {
        **{key: provenance.get("export", {}).get(key) for key in ("study", "trial")},
        "scores": dict(metrics.content["scores"]),
        "intervals": metrics.intervals,
        "cards": metrics.cards,
        "data_digest": provenance.get("data_digest"),
        "commit": (provenance.get("git") or {}).get("commit"),
    }


def artifact_name(bundle: str) -> str:
    """Shorten a bundle's name to the characters and the length that W&B allows."""
    return re.sub(r"[^\w.-]+", "-", bundle, flags=re.ASCII)[:128]


def registry_path(registry: str, collection: str) -> str:
    """Expand REGISTRY (the collection is called as the artifact) or REGISTRY/COLLECTION to W&B's path."""
    name, _, given = registry.removeprefix(REGISTRY).partition("/")
    return f"{REGISTRY}{name}/{given or collection}"


def _say(text: str) -> None:
    printing.console().print(text, highlight=False, soft_wrap=True)
