"""One clear line for each thing that is wrong: slide, cause, remedy. Everything else is done."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.slides.make import texture, write_slide
from tests.stages.made import CLASS, MODEL, files_of, record_of, run_of, small_slide, states_of, write_config
from wsi_pipeline.cli.app import run

# File name: how its reason begins, and words of the remedy.
BAD = {
    "empty.svs": ("{path} is empty", "copy the file again"),
    "text.svs": ("is no slide that can be opened", "convert it, or leave it out"),
    "half.tif": ("is cut off: ", "copy the file again"),
    "tail.tif": ("is cut off: ", "copy the file again"),
    "picture.png": ("is no slide that can be opened", "convert it, or leave it out"),
    "silent.tif": ("states no mpp", "`cohort.mpp`"),
    "screen.tif": ("states an implausible mpp of 896 µm/px", "`cohort.mpp`"),
    "tiny.tif": ("states an implausible mpp of 0.005 µm/px", "`cohort.mpp`"),
    "coarse.tif": ("is too coarse: its finest level has 4 µm/px, the model works at 1", "higher magnification"),
    "gone.tif": ("there is no file {path}", "look at the path"),
    "folder.tif": ("{path} is a folder", "name the slide file"),
    "pipe.tif": ("{path} is no file but a pipe or a device", "name the slide file"),
    "circle.tif": ("there is no file {path}", "look at the path"),
    "good.tif": ("is there twice", "list each slide once"),
}


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cohort of everything that can be wrong with a slide, and one that is good (and named twice)."""
    from PIL import Image

    folder = tmp_path_factory.mktemp("cohort")
    whole = small_slide(folder / "good.tif").read_bytes()
    (folder / "empty.svs").write_bytes(b"")
    (folder / "text.svs").write_text("a letter about a slide\n" * 40)
    (folder / "half.tif").write_bytes(whole[: len(whole) // 2])
    (folder / "tail.tif").write_bytes(whole[:-5000])
    Image.fromarray(texture(300, 300)).save(folder / "picture.png")
    for name, stated in (("silent", None), ("screen", 896.0), ("tiny", 0.005), ("coarse", 4.0)):
        small_slide(folder / f"{name}.tif", width=600, height=500, stated_mpp=stated)
    (folder / "folder.tif").mkdir()
    os.mkfifo(folder / "pipe.tif")
    (folder / "circle.tif").symlink_to("circle.tif")
    return write_config(folder, ["good.tif", *BAD])


@pytest.fixture(scope="module")
def outcome(cohort: Path) -> Any:
    """Code of `predict` over that cohort, and run.json."""
    return run(["predict", str(cohort)]), record_of(cohort)


def reasons(slides: Any) -> dict[str, str]:
    """Reasons of the slides that failed, by file name."""
    by_id = {slide["uri"]: slide for slide in slides.values()}
    assert len(by_id) == len(slides)
    found = {}
    for key, slide in slides.items():
        if slide["state"] == "failed":
            name = "good.tif" if key.startswith("good-") else slide["name"]
            assert name not in found
            found[name] = slide["reason"]
    return found


def test_the_good_slide_is_done_and_the_code_says_that_some_failed(outcome: Any, cohort: Path) -> None:
    code, record = outcome
    assert code == 2
    states = [slide["state"] for slide in record["slides"].values()]
    assert (states.count("done"), states.count("failed")) == (1, len(BAD))
    (done,) = (key for key, slide in record["slides"].items() if slide["state"] == "done")
    summary = orjson.loads(run_of(cohort).slide(done).summary.read_bytes())
    assert summary["regions"] > 0


@pytest.mark.parametrize("name", BAD)
def test_each_bad_slide_has_its_cause_and_its_remedy(name: str, outcome: Any, cohort: Path) -> None:
    cause, remedy = BAD[name]
    reason = reasons(outcome[1]["slides"])[name]
    assert reason.startswith(cause.format(path=cohort.parent / name))
    assert remedy in reason.partition("; ")[2]
    assert "\n" not in reason


def test_each_bad_slide_is_said_once(cohort: Path, outcome: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["predict", str(cohort)]) == 2
    out, err = capsys.readouterr()
    told = [line for line in err.splitlines() if " ERROR " in line]
    assert len(told) == len(BAD)
    assert len([line for line in out.splitlines() if line.startswith("  failed ")]) == len(BAD)
    for name, reason in reasons(outcome[1]["slides"]).items():
        (line,) = (line for line in told if Path(name).stem in line and line.endswith(reason))
        assert line.partition(" ERROR ")[2].startswith(Path(name).stem)
    assert "Traceback" not in err


def test_trying_again_changes_nothing(cohort: Path, outcome: Any) -> None:
    before = files_of(run_of(cohort))
    assert run(["predict", str(cohort)]) == 2
    assert files_of(run_of(cohort)) == before


def test_the_list_of_slides_says_the_same_before_a_run(
    cohort: Path, outcome: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    # Opened side by side: what is wrong with one is never said of another.
    assert run(["slides", str(cohort), "--json"]) == 2
    rows = orjson.loads(capsys.readouterr().out)
    usable = [row["slide_id"] for row in rows if not row["problems"]]
    assert usable == [key for key, slide in outcome[1]["slides"].items() if slide["state"] == "done"]
    said = {problem for row in rows for problem in row["problems"]}
    assert said == set(reasons(outcome[1]["slides"]).values())


def test_the_others_are_handed_out(cohort: Path, outcome: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["run", str(cohort)]) == 2
    assert "1 images with " in capsys.readouterr().out
    assert run_of(cohort).project.exists()


def test_an_mpp_in_the_configuration_mends_a_slide_that_states_none(tmp_path: Path) -> None:
    silent = small_slide(tmp_path / "silent.tif", stated_mpp=None)
    liar = small_slide(tmp_path / "liar.tif", stated_mpp=896.0)
    config = write_config(tmp_path, [silent, liar], cohort={"mpp": {"silent.tif": 0.5}})
    assert run(["predict", str(config)]) == 2
    write_config(tmp_path, [silent, liar], cohort={"mpp": {"silent.tif": 0.5, "liar.*": 0.5}})
    assert run(["predict", str(config)]) == 0
    for slide in record_of(config)["slides"].values():
        assert (slide["mpp"], slide["mpp_source"], slide["reason"]) == (0.5, "config", None)


def test_a_model_with_other_classes_is_refused_before_anything_is_written(
    slides: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = write_config(tmp_path, [slides[0]], model={"path": MODEL, "classes": ["Tumor", "Stroma"]})
    assert run(["predict", str(config)]) == 1
    (line,) = (line for line in capsys.readouterr().err.splitlines() if line.startswith("error"))
    assert "the configuration wants Tumor, Stroma" in line
    assert f"has {CLASS}" in line
    assert "take another model, or correct `model.classes`" in line
    assert not run_of(config).run_json.exists()
    write_config(tmp_path, [slides[0]], model={"path": MODEL, "classes": [CLASS]})
    assert run(["predict", str(config)]) == 0


def test_the_order_of_the_classes_is_not_asked_for(
    slides: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from tests.models.nets import BACKGROUND, STROMA, TUMOR, contrasty_unet, tumor_card
    from wsi_pipeline.models.unet import save_model

    save_model(tmp_path / "model", contrasty_unet(classes=3), tumor_card(classes=(BACKGROUND, TUMOR, STROMA)))
    for classes, code in ((["Tumor"], 1), (["Stroma", "Tumor"], 0)):
        config = write_config(tmp_path, [slides[0]], model={"path": "model", "classes": classes, "runtime": "torch"})
        assert run(["run", "--dry-run", str(config)]) == code, capsys.readouterr()


def test_an_empty_cohort_and_a_glob_without_slides_are_told_apart_from_a_done_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = write_config(tmp_path, ["nothing/*.tif"])
    assert run(["predict", str(config)]) == 2
    assert "nothing/*.tif: matches no file" in capsys.readouterr().out
    assert states_of(config) == {"*.tif": "failed"}
    (tmp_path / "cohort.csv").write_text("slide_id,uri\n")
    write_config(tmp_path, [], cohort={"manifest": "cohort.csv"})
    assert run(["predict", str(config)]) == 1


def test_a_card_that_is_damaged_or_newer_is_refused_in_one_line(
    slides: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from tests.models.nets import contrasty_unet, tumor_card
    from wsi_pipeline.models.unet import save_model

    save_model(tmp_path / "model", contrasty_unet(), tumor_card())
    config = write_config(tmp_path, [slides[0]], model="model")
    card = tmp_path / "model" / "card.json"
    good = orjson.loads(card.read_bytes())
    for text in (
        "{",
        orjson.dumps({**good, "schema": 99}).decode(),
        orjson.dumps({**good, "sha256": "0" * 64}).decode(),
    ):
        card.write_text(text)
        assert run(["predict", str(config)]) == 1
        (line,) = (line for line in capsys.readouterr().err.splitlines() if line.startswith("error"))
        assert str(tmp_path / "model") in line


@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (2000, 1), (1, 2000), (600, 2)])
def test_a_slide_of_a_few_pixels_is_a_slide(tmp_path: Path, shape: tuple[int, int]) -> None:
    slide = write_slide(tmp_path / "a.tif", texture(*shape), levels=1)
    config = write_config(tmp_path, [slide])
    assert run(["predict", str(config)]) == 0
    assert states_of(config) == {"a.tif": "done"}


def without_privileges(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """The command line as someone whom permissions bind; root is not bound by them."""
    command = [sys.executable, "-m", "wsi_pipeline.cli", *map(str, arguments)]
    if os.geteuid() == 0:
        if shutil.which("setpriv") is None:
            pytest.skip("root, and no setpriv to be less")
        dropped = "-dac_override,-dac_read_search"
        command = ["setpriv", f"--bounding-set={dropped}", f"--inh-caps={dropped}", *command]
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    return subprocess.run(command, env=env, capture_output=True, text=True, check=False)


def test_what_may_not_be_read_or_written_is_named_and_the_rest_done(tmp_path: Path) -> None:
    names = ["good.tif", "other.tif", "secret.tif", "closed/in.tif"]
    (tmp_path / "closed").mkdir()
    for name in names:
        small_slide(tmp_path / name, width=600, height=500)
    config = write_config(tmp_path, names)
    assert run(["predict", str(config)]) == 0
    (other,) = (key for key in record_of(config)["slides"] if key.startswith("other-"))
    write_config(tmp_path, names, regions={"threshold": 0.4})
    shut = {tmp_path / "secret.tif": 0, tmp_path / "closed": 0, run_of(config).slide(other).root: 0o555}
    before = {path: path.stat().st_mode for path in shut}
    for path, mode in shut.items():
        path.chmod(mode)
    try:
        done = without_privileges("predict", config)
    finally:
        for path, whole in before.items():
            path.chmod(whole)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    slides = {slide["name"]: slide for slide in record_of(config)["slides"].values()}
    assert slides["good.tif"]["state"] == "done"
    for name in ("secret.tif", "in.tif"):
        assert slides[name]["reason"].endswith(f"/{name} may not be read; mend its permissions")
    assert "Permission denied; mend the permissions there" in slides["other.tif"]["reason"]
    assert run(["predict", str(config)]) == 0
