"""The errors whose message is for the operator: a program prints them and ends, without a traceback."""

from watchllm.configuration import ConfigurationError
from watchllm.control.errors import ControlError, Invalid
from watchllm.domain.errors import Unavailable
from watchllm.domain.sealing import SealError
from watchllm.stores.home import HomeUnusable
from watchllm.stores.lmdb.environment import StoreBroken

WRONG_USAGE: tuple[type[Exception], ...] = (ConfigurationError, Invalid)
FAILURES: tuple[type[Exception], ...] = (ControlError, SealError, HomeUnusable, StoreBroken, Unavailable)
