"""An MLflow server has what our client told it, read back by MLflow's own client.

Starts a server on this machine's loopback in a folder of its own, runs COMMAND with the server's address
behind it, and compares.

usage: tracking.py FOLDER COMMAND...
"""

import contextlib
import json
import os
import pathlib
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

# What it prints is figures.
os.environ["MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR"] = "false"

import mlflow
import numpy
import onnxruntime

SECONDS_TO_START = 180


@contextlib.contextmanager
def server(folder):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--backend-store-uri", f"sqlite:///{folder}/mlflow.db"]
    command += ["--artifacts-destination", f"{folder}/artifacts", "--serve-artifacts", "--workers", "1"]
    environment = dict(os.environ, MLFLOW_SERVER_ENABLE_JOB_EXECUTION="false", DO_NOT_TRACK="true")
    with open(f"{folder}/server.log", "wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment, start_new_session=True)
    try:
        wait_for(f"{address}/health", process, folder)
        yield address
    finally:
        # The server has workers; they are one group, which nobody else is in.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, 15)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, 9)
            process.wait()


def wait_for(address, process, folder):
    until = time.monotonic() + SECONDS_TO_START
    while time.monotonic() < until and process.poll() is None:
        try:
            with urllib.request.urlopen(address, timeout=5) as answer:
                if answer.status == 200:
                    return
        except (urllib.error.URLError, OSError):
            time.sleep(0.3)
    raise SystemExit(f"the server did not start:\n{pathlib.Path(folder, 'server.log').read_text()[-4000:]}")


def compare(client, told, fit, folder):
    run = client.get_run(fit["run"])
    experiment = client.get_experiment(run.info.experiment_id)
    assert experiment.name == told["experiment"], experiment
    assert run.info.status == "FINISHED" and run.info.run_name == fit["name"], run.info
    assert (run.info.start_time, run.info.end_time) == (fit["started_ms"], fit["ended_ms"]), run.info
    assert run.data.params == dict(map(tuple, fit["params"]))
    assert all(run.data.tags[key] == value for key, value in fit["tags"])
    for key in {metric["key"] for metric in fit["metrics"]}:
        ours = sorted((m["step"], m["at_ms"], m["value"]) for m in fit["metrics"] if m["key"] == key)
        theirs = sorted((m.step, m.timestamp, m.value) for m in client.get_metric_history(fit["run"], key))
        assert ours == theirs, key
    for path, length in fit["files"]:
        got = pathlib.Path(client.download_artifacts(fit["run"], path)).read_bytes()
        assert len(got) == length, path
        source = folder / path.removeprefix("model/")
        assert path == "model/MLmodel" or got == source.read_bytes(), path
    version = client.get_model_version(told["model"], fit["version"])
    assert (version.run_id, version.status, version.tags) == (fit["run"], "READY", {"kind": "linear"}), version
    return len(fit["metrics"]), len(fit["params"])


def loaded(told, folder):
    """The model behind the alias, as MLflow's tools load it, scores as the engine does."""
    model = mlflow.onnx.load_model(f"models:/{told['model']}@{told['alias']}")
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    cases = json.loads((folder / "cases.json").read_text())
    history = numpy.zeros((1, cases["items"]), numpy.float32)
    for item, weight in cases["cases"][0]["history"]:
        history[0, item] = weight
    ours = numpy.array(cases["cases"][0]["scores"])
    theirs = session.run(["scores"], {"history": history})[0][0]
    error = numpy.abs(ours - theirs).max() / numpy.abs(ours).max()
    assert error <= 1e-5, error
    return error


def main(folder, command):
    folder = pathlib.Path(folder)
    with tempfile.TemporaryDirectory() as temporary, server(temporary) as address:
        start = time.perf_counter()
        subprocess.run([*command, address, str(folder)], check=True, timeout=300)
        seconds = time.perf_counter() - start
        told = json.loads((folder / "recorded.json").read_text())
        mlflow.set_tracking_uri(address)
        client = mlflow.MlflowClient()
        counts = [compare(client, told, fit, folder) for fit in told["fits"]]
        alias = client.get_model_version_by_alias(told["model"], told["alias"])
        assert alias.version == told["fits"][-1]["version"], alias
        versions = client.search_model_versions(f"name = '{told['model']}'")
        assert len(versions) == len(told["fits"]), versions
        experiment = client.get_experiment_by_name(told["experiment"])
        runs = {run.info.run_name: run.info.status for run in client.search_runs([experiment.experiment_id])}
        expected = {fit["name"]: "FINISHED" for fit in told["fits"]} | {told["failed"]["name"]: "FAILED"}
        assert runs == expected, runs
        print(
            json.dumps(
                {
                    "check": "mlflow",
                    "mlflow": mlflow.__version__,
                    "runs": runs,
                    "metrics": [metrics for metrics, _ in counts],
                    "params": [params for _, params in counts],
                    "files": [len(fit["files"]) for fit in told["fits"]],
                    "versions": [fit["version"] for fit in told["fits"]],
                    "alias": f"{told['alias']} -> {alias.version}",
                    "loaded_max_relative_error": float(loaded(told, folder)),
                    "seconds": round(seconds, 3),
                }
            ),
            flush=True,
        )


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
