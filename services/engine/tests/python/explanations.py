"""Our reasons are the exact Shapley values of the exported model; LIME only comes near.

The model is asked as a black box, through ONNX Runtime, about the items of one history: each is there with
its weight or not at all, and the value of a set is the score of the first item of the list. `shap` is given
an empty history as background.

usage: explanations.py FOLDER
"""

import importlib.metadata
import sys
import time

import numpy
import onnxruntime
import shap
from lime.lime_tabular import LimeTabularExplainer

from cases import Cases, tell

# f32 scores carry so much rounding, relative to the largest score of the history.
TOLERANCE = 1e-5
# All subsets of a history are asked up to this length.
EXACT = 10
LIME_SAMPLES = 5_000


class Game:
    """The score of one item as a function of which items of a history are there."""

    def __init__(self, session, items, case):
        self.session, self.items = session, items
        self.of = numpy.array([item for item, _ in case["history"]])
        self.weights = numpy.array([weight for _, weight in case["history"]], numpy.float32)
        self.target = case["list"][0]
        self.parts = numpy.array(case["parts"])
        self.scale = abs(case["scores"][self.target])

    def __call__(self, masks):
        rows = numpy.zeros((len(masks), self.items), numpy.float32)
        rows[:, self.of] = numpy.asarray(masks, numpy.float32) * self.weights
        return self.session.run(["scores"], {"history": rows})[0][:, self.target].astype(numpy.float64)

    def error(self, values):
        """Largest difference from our parts, relative to the score."""
        return numpy.abs(numpy.asarray(values) - self.parts).max() / self.scale


def by_permutation(game):
    length = len(game.of)
    explainer = shap.PermutationExplainer(game, numpy.zeros((1, length)), seed=1)
    return explainer(numpy.ones((1, length)), max_evals=10 * (2 * length + 1)).values[0]


def by_all_subsets(game):
    length = len(game.of)
    return shap.ExactExplainer(game, numpy.zeros((1, length)))(numpy.ones((1, length))).values[0]


def by_linear(game):
    length = len(game.of)
    alone = game(numpy.eye(length)) - game(numpy.zeros((1, length)))[0]
    explainer = shap.LinearExplainer((alone, 0.0), numpy.zeros((1, length)))
    return explainer.shap_values(numpy.ones((1, length)))[0]


def by_lime(game):
    length = len(game.of)
    # As background, histories with each item there or not with even odds.
    background = numpy.random.default_rng(1).integers(0, 2, (1_000, length)).astype(float)
    explainer = LimeTabularExplainer(
        background,
        mode="regression",
        categorical_features=list(range(length)),
        random_state=1,
    )
    told = explainer.explain_instance(numpy.ones(length), game, num_features=length, num_samples=LIME_SAMPLES)
    return numpy.array([weight for _, weight in sorted(told.as_map()[1])])


def main(folder):
    cases = Cases(folder)
    session = onnxruntime.InferenceSession(cases.model, providers=["CPUExecutionProvider"])
    games = [Game(session, cases.items, case) for case in cases.cases]
    short = [game for game in games if 2 <= len(game.of) <= EXACT][:8]
    long = [game for game in games if len(game.of) > EXACT][:16]
    assert short and long, "histories of both lengths"
    found = {}
    for name, method, asked in [
        ("shap exact", by_all_subsets, short),
        ("shap permutation", by_permutation, short + long),
        ("shap linear", by_linear, short + long),
        ("lime", by_lime, short + long),
    ]:
        start = time.perf_counter()
        errors = [game.error(method(game)) for game in asked]
        found[name] = max(errors)
        tell(
            check="explanations",
            method=name,
            version=importlib.metadata.version(name.split()[0]),
            histories=len(asked),
            longest=max(len(game.of) for game in asked),
            max_relative_error=max(errors),
            mean_relative_error=numpy.mean(errors),
            seconds_per_history=(time.perf_counter() - start) / len(asked),
        )
    sums = max(abs(game.parts.sum() - game(numpy.ones((1, len(game.of))))[0]) / game.scale for game in games)
    tell(check="explanations", method="sum of our parts", histories=len(games), max_relative_error=sums)
    for name in ["shap exact", "shap permutation", "shap linear"]:
        assert found[name] <= TOLERANCE, f"{name}: our parts differ by {found[name]}"
    assert sums <= TOLERANCE, f"our parts sum to another score: {sums}"


if __name__ == "__main__":
    main(sys.argv[1])
