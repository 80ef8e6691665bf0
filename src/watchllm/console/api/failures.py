"""What the API answers instead of a document: `{"error": {"code", "message", "param"}}`, whatever went wrong where."""

from http import HTTPStatus

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from watchllm.console.api.written import written
from watchllm.console.told import told
from watchllm.control import errors
from watchllm.domain.errors import GatewayError, InternalError
from watchllm.domain.setting_values import InvalidSetting

_CODES: dict[type[Exception], str] = {
    errors.NotFound: "not_found",
    errors.Forbidden: "role_not_allowed",
    errors.BeyondPlan: "beyond_plan",
    errors.Invalid: "invalid_request",
    errors.DatabaseUnusable: "database_unavailable",
    errors.PublicationFailed: "not_published",
    errors.PlansUnusable: "plans_unusable",
    errors.PricesUnusable: "prices_unusable",
}
_CODES_BY_STATUS = {404: "not_found", 405: "method_not_allowed", 413: "request_too_large"}
_MEANINGS = {404: "There is no such path; GET /api/openapi.json has those there are.", 405: "Not by this method."}


async def answered(request: Request, error: Exception) -> Response:
    """The answer that tells of `error`."""
    headers: dict[str, str] = {}
    if isinstance(error, HTTPException):
        headers |= error.headers or {}
        code = _CODES_BY_STATUS.get(error.status_code, "invalid_request")
        return _error(error.status_code, code, _MEANINGS.get(error.status_code, error.detail), None, headers)
    if isinstance(error, InvalidSetting):
        return _error(400, "invalid_setting", str(error), error.name, headers)
    if isinstance(error, errors.ControlError):
        param = error.setting if isinstance(error, errors.BeyondPlan) else None
        return _error(error.status, _CODES.get(type(error), "failed"), told(error), param, headers)
    # What is no error of ours is one inside: the server logs the traceback, and nobody else is told.
    refusal = error if isinstance(error, GatewayError) else InternalError("Something failed here. The log says why.")
    if refusal.retry_after is not None:
        headers["Retry-After"] = str(int(refusal.retry_after) + 1)
    if refusal.status == HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = 'Bearer realm="WatchLLM management"'
    return _error(refusal.status, refusal.code, refusal.message, refusal.param, headers)


def _error(status: int, code: str, message: str, param: str | None, headers: dict[str, str]) -> Response:
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        headers["Retry-After"] = "1"
    return written({"error": {"code": code, "message": message, "param": param}}, status, headers)
