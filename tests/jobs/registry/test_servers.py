"""MLflow's own programs: a server that is told of runs, one that serves a model, and a database that several make."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pandas as pd
import pytest

import treadle
from tests.jobs.registry.conftest import Recorded
from treadle.jobs.registry.connection import Connection, Target
from treadle.jobs.registry.promotion import promote
from treadle.jobs.registry.recording import find_run
from treadle.jobs.registry.versions import registered

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.slow]


@contextlib.contextmanager
def running(path: str, *arguments: str, log: Path, **environment: str) -> Iterator[str]:
    """The address of a program of MLflow that answers at `path`; ended with all that it started."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", *arguments, "--host", "127.0.0.1", "--port", str(port)]
    # MLflow looks for uvicorn on the path, where an environment that is not activated is not.
    programs = os.pathsep.join([os.path.dirname(sys.executable), os.environ["PATH"]])
    with log.open("wb") as out:
        process = subprocess.Popen(
            command, stdout=out, stderr=out, start_new_session=True, env={**os.environ, "PATH": programs, **environment}
        )
        try:
            deadline = time.monotonic() + 240
            while True:
                with contextlib.suppress(httpx.TransportError):
                    if httpx.get(f"http://127.0.0.1:{port}{path}", timeout=5).status_code == 200:
                        break
                assert process.poll() is None, log.read_text()
                assert time.monotonic() < deadline, log.read_text()
                time.sleep(0.2)
            yield f"http://127.0.0.1:{port}"
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def test_a_served_alias_predicts_as_treadle_does(recorded: Recorded, tmp_path: Path) -> None:
    copy = recorded.copied(tmp_path)
    promote("people:1", "champion", copy.root)
    rows = copy.raw.drop(columns="buys").head(40).astype({"age": "Int64", "member": "boolean"})
    for i, name in enumerate(["age", "income", "city", "member", "joined"]):
        rows.loc[rows.index % 5 == i, name] = None
    bundle = treadle.load_model("people:1", root=copy.root)
    split = {
        "columns": list(rows.columns),
        "data": [
            [None if pd.isna(v) else v.isoformat() if isinstance(v, pd.Timestamp) else v for v in row]
            for row in rows.astype(object).itertuples(index=False)
        ],
    }
    serve = ("models", "serve", "-m", "models:/people@champion", "--env-manager", "local")
    with running("/ping", *serve, log=tmp_path / "log", MLFLOW_TRACKING_URI=copy.uri) as address:
        for explain in (False, True):
            answer = httpx.post(
                f"{address}/invocations", json={"dataframe_split": split, "params": {"explain": explain}}, timeout=60
            )
            assert answer.status_code == 200, answer.text
            found = pd.DataFrame(answer.json()["predictions"])
            pd.testing.assert_frame_equal(
                found, bundle.predict(rows, explain=explain), check_dtype=explain is False, check_exact=not explain
            )
        refused = httpx.post(f"{address}/invocations", json={"dataframe_split": {"columns": ["age"], "data": [[1]]}})
        assert refused.status_code == 400
        assert "missing inputs" in refused.text


def test_a_server_gets_runs_and_bundles(recorded: Recorded, tmp_path: Path) -> None:
    import mlflow.pyfunc

    copy = recorded.copied(tmp_path)
    place = tmp_path / "server"
    place.mkdir()
    options = ("--backend-store-uri", f"sqlite:///{place}/mlflow.db", "--artifacts-destination", str(place / "files"))
    with running("/health", "server", *options, "--workers", "1", log=tmp_path / "log") as address:
        run = treadle.run(copy.spec(tracking={"uri": address, "experiment": "remote"}, seed=11))
        assert run.manifest["model"] == "people:3"
        target = Target(address, "remote")
        with Connection(target).using() as client:
            found = find_run(client, target, run.id)
            assert found is not None
            assert found.info.status == "FINISHED"
            assert {one.path for one in client.list_artifacts(found.info.run_id)} >= {"manifest.json", "bundle"}
            assert sorted(registered(client, "people")) == [3]
        record = promote("people:3", "champion", copy.root, force=True)
        assert record["registry"] == address
        assert treadle.load_model("people@champion", root=copy.root).reference == "people:3"
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("MLFLOW_TRACKING_URI", address)
            loaded = mlflow.pyfunc.load_model("models:/people@champion")
        rows = copy.raw.head(30)
        expected = treadle.load_model("people:3", root=copy.root).predict(rows)
        pd.testing.assert_frame_equal(loaded.predict(rows), expected, check_exact=True)


def test_several_processes_make_one_database(tmp_path: Path) -> None:
    code = (
        "import sys; from treadle.jobs.registry.connection import Connection, Target\n"
        "with Connection(Target(sys.argv[1], 'x')).using() as client: client.create_registered_model(sys.argv[2])"
    )
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    started = [
        subprocess.Popen([sys.executable, "-c", code, uri, f"m{i}"], stderr=subprocess.PIPE, text=True)
        for i in range(4)
    ]
    assert [process.communicate(timeout=250)[1] for process in started] == [""] * 4
    with Connection(Target(uri, "x")).using() as client:
        assert sorted(model.name for model in client.search_registered_models()) == ["m0", "m1", "m2", "m3"]
