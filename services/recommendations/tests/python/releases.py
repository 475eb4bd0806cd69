"""An MLflow server is told of trainings and of what serves by the platform itself.

Starts a server on this machine's loopback in a folder of its own, imports a generated world, and drives the command
through training, promoting and rolling back; then once more with the server gone.

usage: releases.py FOLDER ECHOTUNE
"""

import json
import os
import pathlib
import sys
import tempfile

import tracking
from mlflow import MlflowClient

sys.path.insert(0, "services/echotune/tests/python")
import world

LISTENERS = 400
MODEL = "echotune"
EXPERIMENT = "EchoTune"


def trained(client, echotune, version):
    """The run and the version of the model of a training say what `model show` says."""
    shown = echotune.answer("model", "show", version)
    found = client.get_model_version_by_alias(MODEL, f"release-{version}")
    run = client.get_run(found.run_id)
    assert run.info.status == "FINISHED" and run.info.run_name == f"train {version}", run.info
    assert client.get_experiment(run.info.experiment_id).name == EXPERIMENT
    options = {option["name"]: option["value"] for option in shown["options"]}
    assert {name: float(run.data.params[name]) for name in options} == options, (run.data.params, options)
    assert (run.data.params["seed"], run.data.params["trials"]) == (str(shown["seed"]), str(shown["trials"]))
    for measure in shown["measures"]:
        name = measure["metric"].replace("@", " at ")
        for part in ["candidate", "serving", "low", "high"]:
            assert run.data.metrics[f"{name}/{part}"] == measure[part], (name, part, run.data.metrics)
    files = {file.path for file in client.list_artifacts(found.run_id, "model")}
    assert files == {f"model/{name}" for name in ["MODEL_CARD.md", "MLmodel", "linear.onnx"]}, files
    card = pathlib.Path(client.download_artifacts(found.run_id, "model/MODEL_CARD.md")).read_text()
    assert version in card, card
    return found.version


def serving(client):
    return client.get_model_version_by_alias(MODEL, "serving").version


def main(command):
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        world.write(folder / "world", LISTENERS)
        with tracking.server(folder) as address:
            environment = dict(os.environ, ECHOTUNE__MLFLOW__TRACKING_URI=address)
            echotune = world.Echotune(command, folder / "data", environment)
            echotune("import", "lastfm-hetrec", folder / "world")
            client = MlflowClient(address)
            versions = {}
            for weight in ["0.5", "0.7"]:
                done = echotune.answer("model", "train", "--trials", "2", "--option", f"blend.filter={weight}")
                versions[done["version"]] = trained(client, echotune, done["version"])
            assert sorted(versions.values()) == ["1", "2"], versions
            first, second = versions
            for release in [first, second]:
                echotune("model", "promote", release, "--force", "--reason", "tried out")
                assert serving(client) == versions[release], (release, versions)
            echotune("model", "rollback")
            assert serving(client) == versions[first], versions
        # Without the server everything goes on, and is not told.
        done = echotune.answer("model", "train", "--trials", "2", "--option", "blend.filter=0.9")
        echotune("model", "promote", done["version"], "--force", "--reason", "the server is away")
        listed = echotune.answer("model", "list")["releases"]
        assert listed[0]["version"] == done["version"] and listed[0]["state"] == "serving", listed
        print(json.dumps({"check": "releases", "versions": versions, "without_server": done["version"]}), flush=True)


if __name__ == "__main__":
    main(sys.argv[2])
