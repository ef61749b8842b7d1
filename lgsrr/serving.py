"""The model as an MLflow pyfunc: MLflow calls `_load_pyfunc` with the model's folder, and `predict` with a table.

A table has a column `text` and one for each aspect of the model; the answer has the flat columns of
`lgsrr.predictions`. A column `id` is taken where it is there, else rows are numbered.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from lgsrr.classifier import Asked, Classifier
from lgsrr.errors import DataError
from lgsrr.predictions import flat_columns

if TYPE_CHECKING:
    import pandas as pd


class PyfuncModel:
    """What MLflow holds of a loaded model."""

    def __init__(self, classifier: Classifier) -> None:
        self._classifier = classifier

    def predict(self, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """Label, probability and relations of every row.

        Raises:
            DataError: a column is missing.
        """
        import pandas as pd

        card = self._classifier.card
        missing = [name for name in ("text", *card.aspects) if name not in model_input.columns]
        if missing:
            raise DataError(f"the table lacks the columns {missing}; it has {list(model_input.columns)}")
        ids = model_input["id"] if "id" in model_input.columns else pd.Series(range(1, len(model_input) + 1))
        columns = [model_input[name].astype(str).tolist() for name in ("text", *card.aspects)]
        asked = [
            Asked(id=str(name), text=text, descriptions=tuple(descriptions))
            for name, text, *descriptions in zip(ids, *columns, strict=True)
        ]
        rows = [prediction.flat() for prediction in self._classifier.predict(asked)]
        return pd.DataFrame(rows, columns=list(flat_columns(card)))


def _load_pyfunc(data_path: str) -> PyfuncModel:
    return PyfuncModel(Classifier.load(Path(data_path)))
