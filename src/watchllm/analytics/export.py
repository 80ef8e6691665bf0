"""Usage rows in the order of their time, page by page: any number of them in constant memory.

Each page is a transaction of its own, so that an export of hours keeps no write of the recorder waiting.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

from sqlalchemy import Connection, and_, or_, select

from watchllm.analytics.tables import usage_logs
from watchllm.domain.usage_log import COLUMNS

PAGE = 5000


def rows(
    reading: Callable[[], AbstractContextManager[Connection]],
    *,
    since_ms: int | None = None,
    until_ms: int | None = None,
    project_id: str | None = None,
) -> Iterator[list[tuple[Any, ...]]]:
    """Pages of rows, each the values of `usage_log.COLUMNS`; `since_ms` ≤ at < `until_ms`.

    `reading` begins a transaction that reads, one for each page; what it raises is raised.
    """
    at, number = usage_logs.c.at_ms, usage_logs.c.id
    query = select(number, *(usage_logs.c[name] for name in COLUMNS)).order_by(at, number).limit(PAGE)
    if since_ms is not None:
        query = query.where(at >= since_ms)
    if until_ms is not None:
        query = query.where(at < until_ms)
    if project_id is not None:
        query = query.where(usage_logs.c.project_id == project_id)
    position = COLUMNS.index("at_ms") + 1
    page_query = query
    while True:
        with reading() as connection:
            page = connection.execute(page_query).all()
        if page:
            yield [tuple(row[1:]) for row in page]
        if len(page) < PAGE:
            return
        last = page[-1]
        page_query = query.where(at >= last[position]).where(
            or_(at > last[position], and_(at == last[position], number > last[0]))
        )
