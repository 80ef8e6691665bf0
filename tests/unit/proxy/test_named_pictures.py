"""A request that names a URL is looked at, however it spells that."""

import pytest

from watchllm.proxy.named_pictures import may_name_pictures


@pytest.mark.parametrize(
    "url",
    [
        b"http://127.0.0.1/",
        rb"http:\/\/127.0.0.1\/",
        rb"\u0068ttp:\u002f\u002f127.0.0.1",
        rb"http:\\\\127.0.0.1",
        b"http:/127.0.0.1/",
        b"HTTP:127.0.0.1",
        b"file:/etc/passwd",
    ],
)
@pytest.mark.parametrize("field", [b"url", b"image_url", b"server_url", rb"\u0075rl"])
def test_urls_are_seen(field: bytes, url: bytes) -> None:
    assert may_name_pictures(b'{"%b":"%b"}' % (field, url))


@pytest.mark.parametrize("body", [b'{"content":"see http://127.0.0.1/"}', b'{"url":"no more than a word"}'])
def test_others_are_not_looked_at(body: bytes) -> None:
    assert not may_name_pictures(body)
