"""Everything the gateway may answer instead of a result.

    GatewayError
    ├── BadRequest          400 invalid_json, invalid_request
    ├── Unauthorized        401 missing_api_key, invalid_api_key
    ├── Forbidden           403 model_not_allowed, provider_key_missing, scope_missing, own_provider_key_required
    ├── NotFound            404 not_found, model_not_found
    ├── WireRefusal         405, 408, 411, 413, 415, 417, 431, 501, 505
    ├── LimitExceeded       429
    ├── ProviderFailed      502 provider_error, provider_auth_failed, provider_unreachable
    ├── Unavailable         503 overloaded, shutting_down
    ├── TimedOut            504 provider_timeout, not_in_cache
    └── InternalError       500 internal_error (a bug of ours; the message never carries details)

Raised anywhere inside, turned into bytes once, at the proxy's edge, in the shape of the dialect that was spoken.
The message says what to do next.
"""


class GatewayError(Exception):
    """Base of all answers that are not results.

    `status` is the HTTP status, `code` the stable name from the contract, `type` OpenAI's error class, `param` the
    field at fault, `retry_after` seconds for a `Retry-After` header, `allow` the methods for an `Allow` header.
    `model` and `provider` name what was asked for where that could not be had; they go to the usage log.
    """

    status = 500
    type = "api_error"
    default_code = "internal_error"

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        status: int | None = None,
        retry_after: float | None = None,
        allow: str | None = None,
        provider: str = "",
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code or self.default_code
        self.param = param
        self.retry_after = retry_after
        self.allow = allow
        self.model = ""
        self.provider = provider
        if status is not None:
            self.status = status


class BadRequest(GatewayError):
    status = 400
    type = "invalid_request_error"
    default_code = "invalid_request"


class Unauthorized(GatewayError):
    status = 401
    type = "authentication_error"
    default_code = "invalid_api_key"


class Forbidden(GatewayError):
    status = 403
    type = "permission_error"
    default_code = "model_not_allowed"


class NotFound(GatewayError):
    status = 404
    type = "invalid_request_error"
    default_code = "not_found"


class WireRefusal(GatewayError):
    """A request that HTTP itself lets us refuse: wrong method, no length, too large."""

    status = 413
    type = "invalid_request_error"
    default_code = "request_too_large"


class LimitExceeded(GatewayError):
    status = 429
    type = "rate_limit_error"
    default_code = "rate_limit_exceeded"


class ProviderFailed(GatewayError):
    status = 502
    default_code = "provider_error"


class Unavailable(GatewayError):
    status = 503
    default_code = "overloaded"


class TimedOut(GatewayError):
    status = 504
    default_code = "provider_timeout"


class InternalError(GatewayError):
    pass
