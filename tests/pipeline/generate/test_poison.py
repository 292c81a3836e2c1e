"""A row that ends whoever makes it: given up after three times alone, and all others are made."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from augesc_builder.errors import DiskError, WorkerDiedError
from augesc_builder.hub.claims import claims
from augesc_builder.pipeline.build import build
from augesc_builder.pipeline.generate.apart import Apart, RowFailed
from augesc_builder.pipeline.generate.notes import Notes
from augesc_builder.pipeline.generate.tasks import Task
from augesc_builder.pipeline.summary import summary
from augesc_builder.run.attempts import Attempts
from augesc_builder.run.progress import Progress
from augesc_builder.tables import FAILED, plain_schema
from tests.conftest import ROOT, SOAK, rows_of

QUIET = Progress(quiet=True)
SCRIPT = ROOT / "tests/data/poisoned.py"


@pytest.fixture
def poison(built, tiny_file):
    """Run a command in which a row of the second shard ends its process; give it, and the call."""
    row = sorted(rows_of(built / "generations"), key=lambda r: (r["query_id"], r["sample"]))[5]
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}

    def run(how, *arguments, **more):
        given = environ | {"POISON": f"{row['query_id']} {row['sample']} {how}"} | more
        command = [sys.executable, SCRIPT, *arguments, "--recipe", tiny_file]
        return subprocess.run(  # noqa: PLW1510 - the code is looked at
            [*map(str, command)], env=given, capture_output=True, text=True
        )

    return row, run


def check(run: Path, table: Path, built: Path, row, error: str) -> None:
    """Look whether all is as without the row, which stands among those that failed."""
    key = {name: row[name] for name in ("query_id", "sample", "source", "query")}
    (failed,) = rows_of(table)
    (file,) = table.glob("*.parquet")
    assert pq.read_schema(file).equals(plain_schema(FAILED))
    assert failed.items() >= (key | {"attempts": 3}).items()
    assert error in failed["error"]
    assert failed["error"].isprintable()
    others = rows_of(built / "generations")
    others.remove(row)
    made = run / "generations" if (run / "generations").exists() else run
    assert rows_of(made) == others
    assert not (run / ".work").exists()


@pytest.mark.slow
def test_elements_that_a_row_kills(poison, trained, tiny, built):
    row, run = poison
    element = {"AUGESC_RANK": "0", "AUGESC_WORLD_SIZE": "1"}
    call = ("kill", "build", "--out", trained, "--executor", "slurm")
    assert [run(*call, **element).returncode for _ in range(3)] == [-9, -9, -9]
    assert 0 < len(list((trained / ".work/attempts").iterdir())) <= 9
    last = run(*call, **element)
    assert last.returncode == 0, last.stderr
    assert "its rows are made one by one" in last.stdout
    assert build(tiny, trained, QUIET)
    check(trained, trained / "corpus/failed", built, row, "its process was killed (SIGKILL)")
    card = (trained / "corpus/README.md").read_text()
    assert "config_name: failed" in card
    assert "| `failed` | 1 |" in card
    assert "1 more could not be made (table failed)" in summary(trained)
    assert not [where for where, said, is_so in claims(trained / "corpus") if said != is_so]
    assert not build(tiny, trained, QUIET)  # all is as it should be


INTO_WORKERS = """
import sys
if any(name in " ".join(sys.orig_argv) for name in ("default_worker.py", "multiprocessing.spawn")):
    import tests.data.poisoned
"""


@pytest.mark.slow
@pytest.mark.soak
@pytest.mark.skipif(not SOAK, reason="six actors begin anew, in minutes: make soak")
def test_actors_of_ray_that_a_row_kills(poison, trained, tiny, built, tmp_path):
    pytest.importorskip("ray")
    row, run = poison
    (tmp_path / "sitecustomize.py").write_text(INTO_WORKERS)
    path = os.pathsep.join([str(tmp_path), str(ROOT)])
    done = run("kill", "build", "--out", trained, "--ray-address", "local", PYTHONPATH=path)
    assert done.returncode == 0, done.stderr
    assert "its rows are made one by one" in done.stdout
    check(trained, trained / "corpus/failed", built, row, "its process was killed (SIGKILL)")
    assert not build(tiny, trained, QUIET)


@pytest.mark.slow
@pytest.mark.soak
@pytest.mark.parametrize(
    ("how", "error"), [("kill", "SIGKILL"), ("raise", "ZeroDivisionError: a")][: 2 if SOAK else 1]
)
def test_processes_that_a_row_ends_are_begun_again(poison, built, tmp_path, how, error):
    row, run = poison
    out = tmp_path / "out"
    at = ("generate", built / "queries", "--checkpoint", built / "checkpoint", "--out", out)
    done = run(how, *at, "--set", "generate.backend.workers=2", "--set", "generate.backend.slots=1")
    assert done.returncode == 0, done.stderr
    assert "begun again: " in done.stdout
    assert "1 more could not be made; the table failed says why" in done.stdout
    check(out, out / "failed", built, row, error)


@pytest.mark.slow
def test_a_row_that_raises_is_found_without_an_end(poison, built, tmp_path):
    row, run = poison
    out = tmp_path / "out"
    at = ("generate", built / "queries", "--checkpoint", built / "checkpoint", "--out", out)
    done = run("raise", *at, "--set", "generate.backend.slots=1")
    assert done.returncode == 0, done.stderr
    check(out, out / "failed", built, row, "ZeroDivisionError: a row")


def test_attempts_count_once_their_process_has_ended(tmp_path):
    attempts = Attempts(tmp_path)
    mine = attempts.begin("generate-00001")
    assert attempts.left("generate-00001") == []  # it is under way
    code = "import sys; from pathlib import Path;"
    code += "from augesc_builder.run.attempts import Attempts;"
    code += "Attempts(Path(sys.argv[1])).begin('generate-00001')"
    subprocess.run([sys.executable, "-c", code, tmp_path], check=True, cwd=ROOT)
    assert len(attempts.left("generate-00001")) == len(attempts.ended("generate-00001")) == 1
    mine.failed("an error\nof two lines")
    assert "an error of two lines" in [p.error for p in attempts.ended("generate-00001")]
    (file, *_) = sorted((tmp_path / ".work/attempts").iterdir())
    file.write_text(file.read_text().replace('"host":"', '"host":"another-'))
    assert len(attempts.left("generate-00001")) == 2  # one of which may be at work elsewhere
    assert attempts.left("generate-0000") == attempts.left("generate-00012") == []
    attempts.begin("generate-00001-7")
    attempts.begin("generate-000012")
    attempts.clear("generate-00001")
    (left,) = (tmp_path / ".work/attempts").iterdir()
    assert left.name.startswith("generate-000012.")


class Answering(Apart):
    """Gets each row without a process."""

    def _ask(self, task):
        return {"of": task}


@pytest.mark.parametrize(
    ("n_errors", "n_taken", "given_up"),
    [(2, 9, None), (3, 0, "by itself"), (0, 10, "its worker was killed with it"), (0, 3, None)],
)
def test_a_worker_that_is_killed_beside_a_row_is_not_yet_the_rows_fault(
    tmp_path, tiny, n_errors, n_taken, given_up
):
    name, folder = "generate-00001-4", tmp_path / ".work/attempts"
    code = "import sys; from pathlib import Path;"
    code += "from augesc_builder.run.attempts import Attempts;"
    code += "Attempts(Path(sys.argv[1])).begin(sys.argv[2])"
    subprocess.run([sys.executable, "-c", code, tmp_path, name], check=True, cwd=ROOT)
    (gone,) = folder.iterdir()
    for number in range(n_taken):
        (folder / f"{name}.{number}.json").write_text(gone.read_text())
    gone.unlink()
    for _ in range(n_errors):
        Attempts(tmp_path).begin(name).failed("by itself")
    task = Task({"query_id": "q", "source": "s", "text": "t"}, sample=0, shard=1, row=4)
    maker = Answering(tiny, tmp_path / "checkpoint", tmp_path, {})
    if given_up is None:
        assert maker.make(task, name) == {"of": task}
    else:
        with pytest.raises(RowFailed, match=f"^{given_up}$") as raised:
            maker.make(task, name)
        assert raised.value.attempts == n_errors + n_taken
    assert len(list(folder.iterdir())) == n_errors + n_taken


def test_what_is_no_rows_fault_leaves_no_note(tmp_path):
    notes = Notes(tmp_path, "generate")
    folder = tmp_path / ".work/attempts"
    for error in (DiskError("full"), KeyboardInterrupt()):
        assert notes.begin(3)
        assert len(list(folder.iterdir())) == 1
        assert not (isinstance(error, Exception) and notes.failed(error))
        notes.drop()
        assert not list(folder.iterdir())
    assert notes.begin(3)
    with pytest.raises(ZeroDivisionError) as raised, notes.own():
        raise ZeroDivisionError
    assert not notes.failed(raised.value)


def test_the_third_end_has_a_shard_made_row_by_row(tmp_path):
    notes = Notes(tmp_path, "generate")
    assert notes.begin(3)
    assert not notes.failed(ValueError("before any row"))  # noted, and this worker ends
    assert notes.again() == [3]
    for _ in range(2):
        assert notes.begin(3)
        assert notes.failed(WorkerDiedError("killed"))
        assert notes.again() == [3]
    assert notes.is_over
    assert not notes.begin(3)
    assert (notes.is_over, notes.alone(), notes.is_over) == (False, 3, True)
    assert notes.begin(4)
    notes.done(3)
    (other,) = (tmp_path / ".work/attempts").iterdir()
    assert other.name.startswith("generate-00004.")
