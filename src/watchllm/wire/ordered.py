"""One client's requests in the order in which they are answered: one is with the handler, others wait behind it, and a
refusal comes behind them all."""

from __future__ import annotations

from collections import deque
from time import perf_counter
from typing import TYPE_CHECKING

from watchllm.domain.errors import GatewayError
from watchllm.wire.exchange import Exchange
from watchllm.wire.pacing import LOWEST_RATE, NO_DEADLINE, PacedConnection
from watchllm.wire.refusals import shutting_down
from watchllm.wire.status import CONTINUE, status_line

if TYPE_CHECKING:
    from watchllm.wire.server import Server


class OrderedConnection(PacedConnection):
    """The requests of a connection, between the parser that makes them and the handler that answers them."""

    __slots__ = (
        "_active",
        "_body",
        "_body_began",
        "_body_bytes",
        "_continue_due",
        "_head_bytes",
        "_receiving",
        "_refusal",
        "_waiting",
        "_waiting_bytes",
    )

    def __init__(self, server: Server) -> None:
        super().__init__(server)
        self._receiving: Exchange | None = None  # its head is complete, its body is not
        self._active: Exchange | None = None  # given to the handler and not answered yet
        self._waiting: deque[Exchange] = deque()  # complete, behind the active one
        self._waiting_bytes = 0
        self._body: list[bytes] = []
        self._body_bytes = 0
        self._body_began = 0.0
        self._continue_due = False
        self._head_bytes = 0  # of a head that is not complete, of trailers or between chunks
        self._refusal: GatewayError | None = None

    # --- for exchanges -----------------------------------------------------------------------------------------------

    def exchange_finished(self, exchange: Exchange) -> None:
        """The answer was handed to the transport: go on with the next request, or end the connection."""
        self._release(exchange)
        if not self.connected:
            return
        if not exchange.body_complete:
            self._end_with_linger()
        elif not exchange.keep_alive or self._closing:
            self.close_idle()
        elif exchange is self._active:
            self._turn_to_next()

    def pause_body(self) -> None:
        if self._receiving is None or self._receiving is not self._active:
            return  # all of it is here
        if self.writable:
            self.deadline = NO_DEADLINE
        self._pause_reading()

    def resume_body(self) -> None:
        self._body_began = self._server.now()
        self._move_body_deadline()
        self._resume_reading()

    # --- for the server ----------------------------------------------------------------------------------------------

    @property
    def arriving(self) -> Exchange | None:
        """The request whose body is being received and kept in memory now, or would be if its client read on."""
        exchange = self._receiving
        held_up = not self._reading and self.writable
        return None if exchange is None or exchange.streaming_body or held_up else exchange

    def refuse_arriving(self, error: GatewayError) -> None:
        self._refuse_in_turn(error, self._receiving)

    @property
    def busy(self) -> bool:
        """Whether a request has begun to arrive or is not answered yet."""
        return bool(self._active or self._receiving or self._head_bytes or self._waiting)

    @property
    def has_waiting(self) -> bool:
        return bool(self._waiting)

    def shut_down(self) -> None:
        """The server waits no longer: whose answer is not complete is told so, and nothing behind it is begun."""
        for exchange in self._waiting:
            self._release(exchange)
            exchange.finished = True
        self._waiting.clear()
        was_discarding, active = self._discarding, self._active
        if active is None or not active.began:
            if self.busy and not self._closing:
                self._refuse_in_turn(shutting_down(), active or self._receiving)
        elif not active.finished and active.on_shut_down is not None:
            active.keep_alive = False
            active.on_shut_down()
        if was_discarding or not self._discarding:
            self.close_idle()

    # --- details -----------------------------------------------------------------------------------------------------

    def _dispatch(self, exchange: Exchange) -> None:
        self._active = exchange
        exchange.began = perf_counter()
        if exchange.body_complete:
            self.deadline = NO_DEADLINE
        self._server.handler.on_request(exchange)

    def _turn_to_next(self) -> None:
        self._active = None
        if not self.writable:
            # resume_writing comes back here: neither answers nor requests pile up for a client that does not read.
            self._pause_reading()
            return
        if not self._reading and not self._waiting:
            self._resume_reading()
        if self._waiting:
            self._active = exchange = self._waiting.popleft()
            if not self._waiting:
                self._waiting_bytes = 0
                self._resume_reading()
            self._server.loop.call_soon(self._dispatch_waiting, exchange)
        elif self._refusal is not None:
            self._refuse(self._refusal)
        elif self._receiving is not None:
            self._body_began = self._server.now()
            self._move_body_deadline()
            self._continue()
        elif self._head_bytes:
            self.deadline = self._server.now() + self._server.limits.header_timeout
        else:
            self.deadline = self._server.now() + self._server.limits.idle_timeout

    def _dispatch_waiting(self, exchange: Exchange) -> None:
        if not self.connected or exchange.finished:
            return
        if not self.writable:  # since its turn came
            self._waiting.appendleft(exchange)
            self._turn_to_next()
            return
        try:
            self._dispatch(exchange)
        except Exception as error:  # noqa: BLE001  (whatever a handler raises, as in the parser's callbacks)
            self._server.report(error)
            self.abort()

    def _refuse_in_turn(self, error: GatewayError, exchange: Exchange | None = None) -> None:
        """Answer with `error` once all earlier requests of this connection are answered; nothing more is read."""
        if self._refusal is not None:
            return
        self._refusal = error
        self._receiving = None
        self._body = []
        if exchange is not None and exchange is self._active:
            self._active = None  # its body turned out too large or too slow while it was streamed to the handler
            if exchange.on_disconnect is not None:
                exchange.on_disconnect()
            if exchange.started:
                self.abort()
                return
        if exchange is not None:
            self._release(exchange)
            exchange.finished = True
        if self._active is None and not self._waiting:
            self._refuse(error, exchange)
        else:
            self._discarding = True

    def _refuse(self, error: GatewayError, exchange: Exchange | None = None) -> None:
        head, body = self._server.handler.on_refusal(exchange, error)
        head = b"%bConnection: close\r\nContent-Length: %d\r\n" % (head, len(body))
        if exchange is not None and exchange.method == b"HEAD":
            body = b""
        self.write(b"%b%b%b\r\n%b" % (status_line(error.status), self._server.date_line, head, body))
        self._end_with_linger()

    def _continue(self) -> None:
        """Ask for the body of a request that waits to be asked, unless an earlier answer is still being written."""
        if self._continue_due and self._active is None:
            self._continue_due = False
            self.write(CONTINUE)

    def _move_body_deadline(self) -> None:
        """A body has to keep coming and to reach a lowest average rate, so that dripping holds nothing for long: one
        that is kept has a time in which to arrive besides, else megabytes sent at once would earn hours."""
        receiving = self._receiving
        if self.writable and not self._closing and (self._active is None or self._active is receiving):
            limits = self._server.limits
            allowed = self._body_bytes / LOWEST_RATE
            if receiving is None or not receiving.streaming_body:
                allowed = min(allowed, limits.body_timeout)
            latest = self._body_began + limits.body_grace + allowed
            self.deadline = min(latest, self._server.now() + limits.body_grace)
