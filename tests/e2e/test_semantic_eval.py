"""The proxy decides by the very function that `watchllm eval` judges: the same pairs get the same decisions."""

import json
import random
from pathlib import Path

from tests.support.product import Gateway
from tests.support.semantic import rows_of, serving, wait_until_warm

PAIRS = Path(__file__).parents[2] / "benchmarks" / "semantic" / "pairs_report.jsonl"
COUNT = 200


def test_two_hundred_pairs_get_through_the_socket_what_eval_decides(gateway: Gateway, tmp_path: Path) -> None:
    wait_until_warm(gateway)
    lines = random.Random(5).sample(PAIRS.read_text().splitlines(), COUNT)
    chosen = tmp_path / "pairs.jsonl"
    chosen.write_text("\n".join(lines))
    decisions = gateway.installation.run_json("eval", str(chosen))["decisions"]
    assert len(decisions) == COUNT
    assert 10 < sum(decision["hit"] for decision in decisions) < COUNT - 10

    project = serving(gateway)
    for line in lines:
        pair = json.loads(line)
        for text in (pair["a"], pair["b"]):
            context = {"role": "system", "content": f"You answer in pair {pair['id']}."}
            gateway.chat(project.key, "", messages=[context, {"role": "user", "content": text}])
    found = {
        decision["id"]: (cache == "HIT-SEMANTIC", similarity, confidence, reason)
        for decision, (cache, _, similarity, confidence, reason, *_) in zip(
            decisions, rows_of(gateway, project, 2 * COUNT)[1::2], strict=True
        )
    }
    for decision in decisions:
        hit, similarity, confidence, reason = found[decision["id"]]
        assert hit is decision["hit"], decision
        assert abs(similarity - decision["similarity"]) < 1e-3, decision
        assert abs(confidence - decision["confidence"]) < 1e-3, decision
        assert hit or reason == (decision["guard"] or "confidence"), decision
