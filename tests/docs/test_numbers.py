"""Facts of docs/data/numbers.md: its recipe is read, its table is the code, what it calls refused is."""

import json
import re

from doc_pages import DOCS, ROOT, blocks, commands_of, run

from bentune.quality.number import METRICS
from training.recipe.file import load_recipe
from training.tasks.registry import task_of

PAGE = DOCS / "data/numbers.md"


def test_numbers_page() -> None:
    explain, _ = commands_of(PAGE)
    assert "text-regression" in run(explain, ROOT)
    recipe = load_recipe(ROOT / "recipes/reviews-rating.yaml").recipe
    text = PAGE.read_text()
    assert re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE) == list(METRICS)
    refused = re.findall(r"`([a-z_.]+)`", text[text.index("Refused before") : text.index("## Metrics")])
    assert set(refused) <= task_of(recipe).refused.keys() | {
        "train.balance",
        "train.label_smoothing",
        "calibrate.temperature",
        "evaluate.ordinal",
    }
    (answer,) = blocks(PAGE, "json")
    assert [set(one) for one in json.loads(answer)] == [{"label", "score"}]
