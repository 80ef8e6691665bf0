"""What usage is exported as."""

import io
import sys

import pytest

from watchllm.analytics.formats import FormatUnavailable, write


def test_without_pyarrow_parquet_says_which_interpreter_lacks_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    output = io.BytesIO()
    with pytest.raises(FormatUnavailable) as refused:
        write("parquet", iter(()), output)
    assert f"{sys.executable} -m pip install 'pyarrow" in str(refused.value)
    assert output.getvalue() == b""
