"""Fits item factors to exported histories by the implicit ALS of Spark's MLlib.

Reads what `echotune spark export` wrote, and writes what `echotune spark import` takes: a folder with the factors
in Parquet (item, features) and `factors.json`. Runs wherever spark-submit does:

    spark-submit als.py --input hdfs:///exports/one --output hdfs:///factors/one --kind track --rank 64

MLlib weights a pair by 1 + alpha * r and an unknown one by 1, and multiplies the regularisation with the number of
a listener's, or an item's, pairs (Zhou et al. 2008). It keeps to the paper of Hu, Koren and Volinsky (2008).
"""

import argparse
import json
import platform
import sys
import time

FORMAT = "echotune-listens"
SCHEMA_VERSION = 1
MOST = 2**31 - 1
SAMPLE = 100_000


def arguments(words=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--input", required=True, help="folder of an export, on any file system that Spark reads")
    parser.add_argument("--output", required=True, help="folder to be made")
    parser.add_argument("--kind", choices=["artist", "track"], default="artist", help="items to fit (default: artist)")
    parser.add_argument("--rank", type=whole(1, 1024), default=64, help="dimensions, 1 to 1024 (default: 64)")
    parser.add_argument("--reg", type=positive, default=0.05, help="regularisation per pair (default: 0.05)")
    parser.add_argument("--alpha", type=positive, default=40.0, help="confidence of r = 1 (default: 40)")
    parser.add_argument("--iterations", type=whole(1, 1000), default=15, help="sweeps, 1 to 1000 (default: 15)")
    parser.add_argument("--seed", type=whole(0, 2**63 - 1), default=1, help="of the first factors (default: 1)")
    parser.add_argument(
        "--weights",
        choices=["log", "count", "one"],
        default="log",
        help="r of a pair: ln(1 + plays), plays, or 1 (default: log)",
    )
    parser.add_argument("--files", type=whole(1, 10_000), default=8, help="files of factors (default: 8)")
    return parser.parse_args(words)


def whole(least, most):
    def parse(text):
        value = int(text)
        if not least <= value <= most:
            raise argparse.ArgumentTypeError(f"{value} is not between {least} and {most}")
        return value

    return parse


def positive(text):
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not a number above 0")
    return value


class Refused(Exception):
    """Why the job does not run, for people."""


def read_text(spark, path):
    """A small file, from any file system, and its SHA-256."""
    from pyspark.sql import functions as F

    files = spark.read.format("binaryFile").load(path)
    row = files.select("content", F.sha2("content", 256).alias("sha256")).first()
    return bytes(row["content"]).decode(), row["sha256"]


def write_text(spark, path, text):
    """Writes a small file to any file system; refuses one that is there."""
    context = spark.sparkContext
    path = context._jvm.org.apache.hadoop.fs.Path(path)
    stream = path.getFileSystem(context._jsc.hadoopConfiguration()).create(path, False)
    try:
        stream.write(bytearray(text.encode()))
    finally:
        stream.close()


def exists(spark, path):
    context = spark.sparkContext
    path = context._jvm.org.apache.hadoop.fs.Path(path)
    return path.getFileSystem(context._jsc.hadoopConfiguration()).exists(path)


def files_below(spark, folder):
    """(path below the folder, bytes, SHA-256) of the Parquet files of a folder. The files are read by the cluster."""
    from pyspark.sql import functions as F

    found = spark.read.format("binaryFile").option("recursiveFileLookup", "true")
    found = found.option("pathGlobFilter", "*.parquet").load(folder)
    return found.select("path", "length", F.sha2("content", 256).alias("sha256")).collect()


def check_manifest(manifest):
    for key, wanted in [("format", FORMAT), ("schema_version", SCHEMA_VERSION)]:
        if manifest.get(key) != wanted:
            raise Refused(f"manifest.json: {key} is {manifest.get(key)!r}; this job reads {wanted!r}")


def check_export(spark, folder, kind):
    """The listens of a kind, checked against the manifest; with the manifest and its SHA-256."""
    text, digest = read_text(spark, f"{folder}/manifest.json")
    manifest = json.loads(text)
    check_manifest(manifest)
    wanted = {
        file["path"]: file for file in manifest["files"] if file["part"] == "listens" and file["kind"] == kind
    }
    if not wanted:
        raise Refused(f"the export has no listens of the kind {kind}")
    part = f"{folder}/listens/kind={kind}"
    found = {}
    for row in files_below(spark, part):
        found["listens/" + row["path"].rsplit("/listens/", 1)[1]] = row
    for path, file in wanted.items():
        row = found.pop(path, None)
        if row is None:
            raise Refused(f"{path} is missing; copy the export again")
        if row["length"] != file["bytes"] or row["sha256"] != file["sha256"]:
            raise Refused(f"{path} is not as it was written; copy the export again")
    if found:
        raise Refused(f"{min(found)} is not in the manifest; copy the export to a folder of its own")
    listens = spark.read.option("basePath", part).parquet(part)
    types = {field.name: field.dataType.simpleString() for field in listens.schema.fields}
    for column, type_ in [("user", "string"), ("item", "string"), ("plays", "bigint")]:
        if types.get(column) != type_:
            raise Refused(f"column {column} is {types.get(column)}; this job reads {type_}")
    rows = listens.count()
    told = sum(file["rows"] for file in wanted.values())
    if rows != told:
        raise Refused(f"the files have {rows} rows, and the manifest tells of {told}")
    return listens, rows, manifest, digest


def numbered(spark, listens, column):
    """Each value of a column with a whole number from 0 on, in their order: the same for the same export."""
    from pyspark.sql import types as T

    values = listens.select(column).distinct().orderBy(column).rdd.map(lambda row: row[0])
    schema = T.StructType(
        [T.StructField(column, T.StringType(), False), T.StructField(f"{column}_number", T.LongType(), False)]
    )
    numbers = spark.createDataFrame(values.zipWithIndex(), schema).persist()
    count = numbers.count()
    if count > MOST:
        raise Refused(f"there are {count} values of {column}; MLlib numbers at most {MOST}")
    return numbers, count


def rating(weights):
    from pyspark.sql import functions as F

    plays = F.col("plays").cast("double")
    return {"log": F.log1p(plays), "count": plays, "one": F.lit(1.0)}[weights].cast("float")


def fit(spark, listens, options):
    """Factors by item id, how many listeners and items there are, and the mean preference of known pairs."""
    from pyspark.ml.recommendation import ALS
    from pyspark.sql import functions as F

    users, listeners = numbered(spark, listens, "user")
    items, count = numbered(spark, listens, "item")
    pairs = listens.join(users, "user").join(items, "item")
    pairs = pairs.select(
        F.col("user_number").cast("int").alias("user"),
        F.col("item_number").cast("int").alias("item"),
        rating(options.weights).alias("rating"),
    ).persist()
    als = ALS(
        rank=options.rank,
        maxIter=options.iterations,
        regParam=options.reg,
        alpha=options.alpha,
        implicitPrefs=True,
        nonnegative=False,
        seed=options.seed,
        userCol="user",
        itemCol="item",
        ratingCol="rating",
        coldStartStrategy="drop",
    )
    model = als.fit(pairs)
    known = model.transform(pairs.limit(SAMPLE)).agg(F.avg("prediction")).first()[0]
    factors = model.itemFactors.join(items, F.col("id") == F.col("item_number")).select("item", "features")
    return factors, listeners, count, known


def train(spark, options):
    started = time.monotonic()
    if exists(spark, options.output):
        raise Refused(f"{options.output} is there already; name a folder that is new")
    listens, rows, manifest, digest = check_export(spark, options.input, options.kind)
    factors, listeners, items, known = fit(spark, listens, options)
    factors.repartition(options.files).write.parquet(f"{options.output}/factors")
    files = []
    for row in files_below(spark, f"{options.output}/factors"):
        name = row["path"].rsplit("/", 1)[1]
        files.append({"path": f"factors/{name}", "bytes": row["length"], "sha256": row["sha256"]})
    told = {
        "format": "echotune-factors",
        "schema_version": 1,
        "kind": options.kind,
        "rank": options.rank,
        "items": items,
        "listeners": listeners,
        "rows": rows,
        "export": {"manifest_sha256": digest, "watermark": manifest["watermark"]},
        "options": {
            "regularization": options.reg,
            "alpha": options.alpha,
            "iterations": options.iterations,
            "seed": options.seed,
            "weights": options.weights,
        },
        "metrics": {"seconds": round(time.monotonic() - started, 1), "mean_preference_of_known_pairs": known},
        "versions": {"spark": spark.version, "python": platform.python_version()},
        "files": sorted(files, key=lambda file: file["path"]),
    }
    write_text(spark, f"{options.output}/factors.json", json.dumps(told, indent=2) + "\n")
    print(f"{items} items, {listeners} listeners, {rows} rows: factors of rank {options.rank} in {options.output}")


def main():
    options = arguments()
    from pyspark.sql import SparkSession

    spark = SparkSession.builder.appName("echotune-als").getOrCreate()
    spark.sparkContext.setLogLevel("WARN")
    try:
        train(spark, options)
    except Refused as refused:
        sys.exit(f"error: {refused}")
    finally:
        spark.stop()


if __name__ == "__main__":
    main()
