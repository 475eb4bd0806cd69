"""The exported model is a valid ONNX graph, and ONNX Runtime scores as the engine does.

usage: scores.py FOLDER
"""

import sys

import numpy
import onnx
import onnxruntime

from cases import Cases, tell

# Sums of f32 in another order; relative to the largest score of a history.
TOLERANCE = 1e-5


def main(folder):
    cases = Cases(folder)
    model = onnx.load(cases.model)
    onnx.checker.check_model(model, full_check=True)
    session = onnxruntime.InferenceSession(cases.model, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    assert names == ["scores", "best_scores", "best_items"], names
    histories, ours = cases.histories(), cases.scores()
    theirs, best_scores, best_items = session.run(names, {"history": histories})
    largest = numpy.abs(ours).max(axis=1, keepdims=True)
    assert (largest > 0).all(), "histories that say something"
    error = (numpy.abs(theirs - ours) / largest).max()
    lists = numpy.array([case["list"] for case in cases.cases])
    # Where two scores are equal but for rounding, either may come first.
    told = numpy.take_along_axis(ours, lists, axis=1)
    list_error = (numpy.abs(best_scores - told) / largest).max()
    tell(
        check="onnx",
        onnx=onnx.__version__,
        onnxruntime=onnxruntime.__version__,
        opset=model.opset_import[0].version,
        version={one.key: one.value for one in model.metadata_props}["version"],
        cases=len(ours),
        items=cases.items,
        max_relative_error=error,
        list_max_relative_error=list_error,
        equal_places=(best_items == lists).mean(),
    )
    assert error <= TOLERANCE, f"scores differ by {error}"
    assert list_error <= TOLERANCE, f"lists differ by {list_error}"
    # One history alone is scored as in a batch.
    alone = session.run(["scores"], {"history": histories[:1]})[0]
    assert (numpy.abs(alone - ours[:1]) / largest[:1]).max() <= TOLERANCE


if __name__ == "__main__":
    main(sys.argv[1])
