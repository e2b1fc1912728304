"""The measuring instrument: store, replay, costs, grading, isolation, evaluation, Gymnasium."""
