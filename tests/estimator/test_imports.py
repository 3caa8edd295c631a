"""What `import molhpft.estimator` imports: to load a model and predict takes few packages."""

import subprocess
import sys

import pytest

LATER = (
    *("sklearn", "pandas", "scipy.stats", "numba", "torch_geometric", "ogb", "joblib"),
    *("plotly", "jinja2", "matplotlib", "captum", "pyarrow", "PIL", "lightning_fabric"),
    *("huggingface_hub", "fsspec", "ray"),
)


@pytest.mark.slow
def test_packages_that_few_need_are_imported_when_they_are_used():
    code = f"import sys, molhpft.estimator; print(*set({LATER!r}) & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_the_estimators_are_there_all_the_same():
    import molhpft.estimator

    for name in molhpft.estimator.__all__:
        assert getattr(molhpft.estimator, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'HPFTCluster'"):
        molhpft.estimator.HPFTCluster  # noqa: B018
