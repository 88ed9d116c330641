"""Bundles that are not what was exported: every file of a real one damaged, and records that lie."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from catsweep import publish
from catsweep.errors import ExportError
from catsweep.export import bundle_images, digests, evaluation, graphs, weights
from catsweep.export.digests import READ, of, refuse_links, verify
from catsweep.generate import model_source
from catsweep.runs import CONFIG

pytestmark = pytest.mark.security
FILES = {
    "config.yaml": b"model: {}\n",
    "generator.onnx": b"network",
    "model.safetensors": bytes(300),
    "README.md": b"#\n",
}


def record(folder: Path, files: Any) -> None:
    (folder / "provenance.json").write_text(json.dumps({"export": {"files": files}}))


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A small one with its digests; what is in the files nobody reads here."""
    folder = tmp_path / "exports" / "cats-3"
    folder.mkdir(parents=True)
    for name, content in FILES.items():
        (folder / name).write_bytes(content)
    record(folder, of(folder))
    return folder


# A real one


def test_every_file_of_a_bundle_has_its_digest(vae: Any, gan: Any) -> None:
    for made in (vae, gan):
        recorded = json.loads((made.folder / "provenance.json").read_text())["export"]["files"]
        there = {path.name for path in made.folder.iterdir() if path.name[0] != "."}
        assert recorded.keys() == there - {"provenance.json"}
        assert there <= READ | {"README.md"}
        assert verify(made.folder) == []


def test_the_names_are_those_that_the_export_writes() -> None:
    written = {str(CONFIG), weights.WEIGHTS, graphs.GENERATOR, graphs.RECONSTRUCTOR, graphs.PROGRAM}
    assert written | {bundle_images.SAMPLES, bundle_images.INTERPOLATION, bundle_images.NEIGHBOURS} <= READ


def damage(folder: Path, name: str) -> None:
    content = bytearray((folder / name).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / name).write_bytes(content)


@pytest.mark.parametrize("name", sorted(READ - {"provenance.json"}))
def test_whoever_reads_a_bundle_refuses_it_for_any_of_its_files(vae: Any, tmp_path: Path, name: str) -> None:
    folder = shutil.copytree(vae.folder, tmp_path / "bundle")
    damage(folder, name)
    for read in readers(folder):
        with pytest.raises(ExportError, match=rf"{name} has sha256 \w{{12}}…, expected \w{{12}}…\. Export it again"):
            read()
    os.truncate(folder / name, 5)
    for read in readers(folder):
        with pytest.raises(ExportError, match=rf"{name} has 5 bytes, expected [\d,]+\. Export it again"):
            read()
    (folder / name).unlink()
    for read in readers(folder):
        with pytest.raises(ExportError, match=rf"{name} is missing|holds no generator"):
            read()


def readers(folder: Path) -> list[Callable[[], Any]]:
    keys: Any = OmegaConf.load(Path(__file__).parents[2] / "conf" / "evaluate.yaml")
    taken = {key: keys[key] for key in keys if key not in ("defaults", "hydra")}
    cfg: Any = OmegaConf.create(taken | {"bundle": str(folder)})
    return [
        lambda: evaluation.run(cfg),
        lambda: model_source.choose(str(folder), None).generator,
        lambda: model_source.Source(folder).encoder,
        lambda: publish.push(folder, OmegaConf.create({"push": "hub", "hub_repo": "user/name"})),
    ]


# Any


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(sorted(FILES.keys() - {"README.md"})), st.binary(max_size=400))
def test_other_content_is_another_bundle(bundle: Path, name: str, content: bytes) -> None:
    (bundle / name).write_bytes(content)
    try:
        if content == FILES[name]:
            assert verify(bundle) == []
        else:
            with pytest.raises(ExportError, match=rf"is not the bundle that was exported: {name} has "):
                verify(bundle)
    finally:
        (bundle / name).write_bytes(FILES[name])


def test_two_files_that_changed_places_are_both_named(bundle: Path) -> None:
    (bundle / "config.yaml").rename(bundle / "x")
    (bundle / "generator.onnx").rename(bundle / "config.yaml")
    (bundle / "x").rename(bundle / "generator.onnx")
    with pytest.raises(ExportError, match=r"config\.yaml has 7 .*expected 10; generator\.onnx has 10 .*expected 7\."):
        verify(bundle)


@pytest.mark.parametrize("name", ["reconstructor.onnx", "generate.py", "samples.png"])
def test_a_file_that_would_be_read_may_not_be_added(bundle: Path, name: str) -> None:
    (bundle / name).touch()
    with pytest.raises(ExportError, match=f"{name} was not exported with it"):
        verify(bundle)


def test_what_is_not_read_is_said(bundle: Path) -> None:
    for name in ("cats.png", ".gitattributes", "notes.txt"):
        (bundle / name).touch()
    (bundle / ".git").mkdir()
    (bundle / "README.md").write_bytes(b"license: mit\n")
    edited, others = verify(bundle)
    assert edited == f"{bundle}/README.md was edited after the export."
    assert others == f"Not of the bundle, and not read: cats.png, notes.txt in {bundle}."


def test_a_bundle_without_digests_is_read_and_that_is_said(bundle: Path) -> None:
    for content in ("{}", '{"export": {}}', '{"export": null}'):
        (bundle / "provenance.json").write_text(content)
        [line] = verify(bundle)
        assert line.startswith(f"{bundle} holds no digests of its files, as of an earlier version")
    (bundle / "provenance.json").unlink()
    assert len(verify(bundle)) == 1


GOOD = {"bytes": 7, "sha256": "0" * 64}


@pytest.mark.parametrize(
    "files",
    [None, [], "all", 3, {"a": None}, {"a": {}}, {"a": [7, "0" * 64]}, {"a": GOOD | {"bytes": "7"}},
     {"a": GOOD | {"bytes": True}}, {"a": GOOD | {"sha256": None}}, {"a": GOOD | {"sha256": "0" * 63}},
     {"a": GOOD | {"sha256": "G" * 64}}, {"../../etc/passwd": GOOD}, {"/etc/passwd": GOOD}, {"a\\b": GOOD}, {"": GOOD},
     {".": GOOD}, {"..": GOOD}, {"provenance.json": GOOD}, {"a\0": GOOD}],
    ids=repr,
)  # fmt: skip
def test_a_record_that_is_none_is_refused(bundle: Path, files: Any) -> None:
    record(bundle, files)
    with pytest.raises(ExportError, match="does not hold the digests of an export"):
        verify(bundle)


@pytest.mark.parametrize("content", ["", "{", "[]", "\x00", '{"export": []}', '{"export": "all"}', '{"export": 3}'])
def test_a_torn_provenance_is_named(bundle: Path, content: str) -> None:
    (bundle / "provenance.json").write_text(content)
    if content == '{"export": []}':  # as good as none
        assert len(verify(bundle)) == 1
        return
    with pytest.raises(ExportError, match=r"provenance\.json .*(cannot be read|holds|does not hold).*Export it again"):
        verify(bundle)


# Links


def test_no_link_out_of_a_bundle_is_followed(bundle: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    for name, content in FILES.items():
        secret.write_bytes(content)  # even if it is the very same
        (bundle / name).unlink()
        for target in (secret, Path("../../secret"), tmp_path / "absent", Path(name)):
            (bundle / name).symlink_to(target)
            with pytest.raises(ExportError, match=rf"{name} is a link out of the bundle, to .*: cp -rL .* COPY"):
                verify(bundle)
            (bundle / name).unlink()
        (bundle / name).write_bytes(content)
    (bundle / "reconstructor.onnx").symlink_to(secret)
    with pytest.raises(ExportError, match="is a link out of the bundle"):
        verify(bundle)


def test_what_a_record_names_besides_is_no_link_out_either(bundle: Path, tmp_path: Path) -> None:
    """Else it would tell size and digest of a file of the user."""
    (tmp_path / "secret").write_bytes(bytes(7))
    (bundle / "notes.txt").symlink_to(tmp_path / "secret")
    record(bundle, {**of(bundle), "notes.txt": GOOD})
    with pytest.raises(ExportError, match=r"notes\.txt is a link out of the bundle") as caught:
        verify(bundle)
    assert "sha256" not in str(caught.value)


def test_a_bundle_may_be_reached_by_a_link_and_have_links_within(bundle: Path) -> None:
    (bundle / "config.yaml").rename(bundle / ".config")
    (bundle / "config.yaml").symlink_to(".config")
    (bundle.parent / "latest").symlink_to(bundle.name)
    assert verify(bundle.parent / "latest") == []


def test_a_pipe_in_a_bundle_is_not_waited_for(bundle: Path) -> None:
    (bundle / "model.safetensors").unlink()
    os.mkfifo(bundle / "model.safetensors")
    with pytest.raises(ExportError, match="is no file, but a pipe"):
        verify(bundle)


def test_nothing_that_is_elsewhere_is_pushed(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "key").write_text("secret")
    (bundle / ".cache").mkdir()
    (bundle / ".cache" / "more").symlink_to(tmp_path / "key")
    assert verify(bundle) == []
    with pytest.raises(ExportError, match=r"\.cache/more is a link out of the bundle"):
        publish.push(bundle, OmegaConf.create({"push": "hub", "hub_repo": "user/name"}))
    refuse_links([bundle / "absent"], bundle)


def test_digests_are_said_where_a_bundle_is_drawn_from(
    vae: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = shutil.copytree(vae.folder, tmp_path / "bundle")
    assert model_source.Source(folder).generator.image_size == 32
    assert capsys.readouterr().err == ""
    provenance = json.loads((folder / "provenance.json").read_text())
    del provenance["export"]["files"]
    (folder / "provenance.json").write_text(json.dumps(provenance))
    assert model_source.Source(folder).generator.image_size == 32
    assert "holds no digests of its files" in capsys.readouterr().err
    assert digests.PROVENANCE == "provenance.json"
