"""Whether two sets of latents of the same sources differ: by a classifier, and under their own errors."""

import numpy as np
from jaxtyping import Float
from sklearn.ensemble import HistGradientBoostingClassifier


def told_apart(codes: Float[np.ndarray, "two n k"]) -> tuple[float, float]:
    """Balanced accuracy with which gradient boosting tells the views apart, and its standard error.

    Half of the sources train and the other half test, then the other way round. Both views of a source are always on
    the same side, and count as one trial in the error.
    """
    n = codes.shape[1]
    half = np.arange(n) % 2
    right = np.empty((2, n))
    for side in (0, 1):
        train, test = codes[:, half != side], codes[:, half == side]
        classifier = HistGradientBoostingClassifier(
            learning_rate=0.05, max_iter=300, max_leaf_nodes=15, min_samples_leaf=30, early_stopping=True,
            n_iter_no_change=15, random_state=0,
        )  # fmt: skip
        classifier.fit(np.concatenate(train), np.repeat([0, 1], train.shape[1]))
        right[:, half == side] = np.stack([classifier.predict(view) == i for i, view in enumerate(test)])
    score = right.mean(axis=0)
    return float(score.mean()), float(score.std() / np.sqrt(n))


def squared_differences(
    difference: Float[np.ndarray, "n k"], covariance: Float[np.ndarray, "n k k"]
) -> Float[np.ndarray, " n"]:
    """Squared differences under their covariances: k on average where all is right."""
    return np.einsum("ni,ni->n", difference, np.linalg.solve(covariance, difference[:, :, None])[:, :, 0])
