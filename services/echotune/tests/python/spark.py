"""Histories go out to a real Apache Spark, factors come back, and lists with exact reasons are made from them.

Imports a generated world into a data folder of its own, and drives the command through the whole way.

usage: spark.py FOLDER ECHOTUNE JOB
"""

import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

import world

LISTENERS = 400


def job(script, *words):
    # Two threads and few partitions: the world is small.
    told = "--master local[2] --conf spark.ui.enabled=false --conf spark.sql.shuffle.partitions=4 pyspark-shell"
    environment = dict(os.environ, PYSPARK_PYTHON=sys.executable, PYSPARK_SUBMIT_ARGS=told, SPARK_LOCAL_IP="127.0.0.1")
    command = [sys.executable, str(script), *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    return done.returncode, done.stdout + done.stderr


def check_list(shown, taste):
    """Reasons sum to the score, and the list is of the listener's taste."""
    items = shown["recommendations"]
    assert len(items) == 10, items
    for item in items:
        told = sum(reason["contribution"] for reason in item["reasons"])
        assert abs(item["base"] + told - item["score"]) <= 1e-5, item
        assert item["reasons"], item
    own = [item for item in items if int(item["artist"].split()[1]) % world.TASTES == taste]
    assert len(own) >= 8, [item["artist"] for item in items]


def main():
    command, script = pathlib.Path(sys.argv[2]), pathlib.Path(sys.argv[3])
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        world.write(folder / "world", LISTENERS)
        echotune = world.Echotune(command, folder / "data")
        answer = echotune.answer
        echotune("import", "lastfm-hetrec", folder / "world")
        exported = answer("spark", "export", folder / "export", "--hold-out", "40", "--partitions", "4")
        assert exported["listeners"] == LISTENERS, exported
        options = ["--kind", "artist", "--rank", 8, "--alpha", 10, "--iterations", 8]
        code, said = job(script, "--input", folder / "export", "--output", folder / "factors", *options)
        assert code == 0, said
        code, said = job(script, "--input", folder / "export", "--output", folder / "factors", *options)
        assert code != 0 and "is there already" in said, said
        imported = answer("spark", "import", folder / "factors", "--export", folder / "export", "--min-share", "0.8")
        print(json.dumps(imported))
        (listed,) = answer("spark", "candidates")["candidates"]
        assert imported == {**listed, "vanished_items": 0}, (imported, listed)
        assert imported["judged"] > 20 and imported["vanished_items"] == 0, imported
        assert imported["rank"] == 8 and imported["trainer"].startswith("Apache Spark "), imported
        for listener in [2, 3, 9]:
            shown = answer("spark", "recommend", "--user", f"hetrec-{listener}", "--explain")
            assert shown["model_version"] == imported["model_version"], shown
            check_list(shown, listener % world.TASTES)
        # A file that changes on its way is not trained on.
        shutil.copytree(folder / "export", folder / "changed")
        table = next((folder / "changed/listens/kind=artist").rglob("*.parquet"))
        table.write_bytes(table.read_bytes()[:-1] + b"x")
        code, said = job(script, "--input", folder / "changed", "--output", folder / "other", *options)
        assert code != 0 and "is not as it was written" in said, said
        # Nobody who was erased since is in a model.
        echotune("user", "erase", "hetrec-3", "--yes")
        said = echotune("spark", "import", folder / "factors", "--export", folder / "export", refused=True)
        assert "1 of the listeners in the export have been erased" in said, said


if __name__ == "__main__":
    main()
