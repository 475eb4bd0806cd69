"""What `cargo run --example export` wrote: histories with our scores, lists and reasons."""

import json
import pathlib

import numpy


class Cases:
    def __init__(self, folder):
        self.folder = pathlib.Path(folder)
        told = json.loads((self.folder / "cases.json").read_text())
        self.items = told["items"]
        self.cases = told["cases"]
        self.model = str(self.folder / "linear.onnx")

    def histories(self):
        """[cases, items] of f32."""
        rows = numpy.zeros((len(self.cases), self.items), numpy.float32)
        for row, case in zip(rows, self.cases):
            for item, weight in case["history"]:
                row[item] = weight
        return rows

    def scores(self):
        """[cases, items] of f32, as the engine scores."""
        return numpy.array([case["scores"] for case in self.cases], numpy.float32)


def tell(**figures):
    """One line of JSON; numbers of numpy as plain ones."""
    print(json.dumps(figures, default=float), flush=True)
