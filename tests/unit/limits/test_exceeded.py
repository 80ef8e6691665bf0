"""What is said to who is refused."""

from watchllm.limits import exceeded
from watchllm.limits.subject import KEY, ORGANIZATION, Bounds

WHOLE = Bounds("key_1", KEY, requests=24, tokens=1000, concurrent=8, upstream=40, quota=60, monthly=60)
SHARE = WHOLE._replace(requests=6, tokens=250, concurrent=2, upstream=10, monthly=15, whole=WHOLE)


def test_the_limit_is_told_and_not_only_the_share_of_it_that_one_proxy_keeps() -> None:
    told = [
        (exceeded.requests(SHARE, 3), "24 requests a minute", "share of 6 by"),
        (exceeded.upstream(SHARE, 3), "40 calls a minute", "share of 10 by"),
        (exceeded.tokens(SHARE, 300, 3), "1000 tokens a minute", "share of 250 by"),
        (exceeded.tokens(SHARE, 300, None), "1000 a minute", "share of 250 by"),
        (exceeded.concurrent(SHARE), "8 requests under way", "share of 2 by"),
        (exceeded.quota(SHARE, 3), "The 60 requests", "a share by"),
        (exceeded.quota_held(SHARE), "of the 60 requests", "a share by"),
    ]
    for error, limit, share in told:
        assert limit in error.message
        assert share in error.message
    assert "share" not in exceeded.requests(WHOLE, 3).message


def test_the_quota_is_told_beside_what_is_paid_for_beyond_it() -> None:
    message = exceeded.quota(Bounds("org_1", ORGANIZATION, quota=20, monthly=30), 3).message
    assert "The 20 requests" in message
    assert "overage_cap_usd" in message
    assert "the 10 beyond" in message
    assert "overage" not in exceeded.quota(WHOLE, 3).message


def test_nobody_is_told_to_bound_an_answer_that_has_no_tokens() -> None:
    for error in (
        exceeded.tokens(WHOLE, 2000, None),
        exceeded.budget_held(WHOLE, "day"),
        exceeded.budget(WHOLE, "day", 3),
        exceeded.budget(WHOLE, "total", None),
    ):
        assert "max_tokens" in error.message
        assert "max_tokens" not in error.to_embed
