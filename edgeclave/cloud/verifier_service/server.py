"""The HTTP side: routes, limits, health, and one line of log for each refusal."""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

import msgspec
import structlog
from aiohttp import hdrs, web
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from edgeclave.cloud.verifier_service.appraiser import Appraiser
from edgeclave.cloud.verifier_service.limits import RateLimit, client_of
from edgeclave.cloud.verifier_service.metrics import Metrics
from edgeclave.cloud.verifier_service.openapi import document
from edgeclave.cloud.verifier_service.requests import (
    MAX_BODY_BYTES,
    AppraisalRequest,
    AttestSgxRequest,
    NonceAnswer,
    RefusalError,
    TokenAnswer,
    answer,
    base64url,
    binary,
    error_answer,
    runtime_data,
)
from edgeclave.errors import ConfigurationError, EdgeclaveError

BODY_SECONDS = 10.0  # how long a body may take to arrive
KEEP_ALIVE_SECONDS = 75.0
STOP_SECONDS = 5.0
"""How long `stop` lets requests in progress finish."""
_Body = TypeVar("_Body", bound=msgspec.Struct)
_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
_log = structlog.get_logger(__name__)


class VerifierServer:
    """Args:
    limit: per client, over all operations that cost something.
    forwarded: take the client's address from the last entry of X-Forwarded-For, which the balancer writes.
    context: TLS; None for plain HTTP.
    """

    def __init__(
        self,
        appraiser: Appraiser,
        limit: RateLimit,
        *,
        forwarded: bool = False,
        context: ssl.SSLContext | None = None,
        registry: CollectorRegistry | None = None,
    ) -> None:
        self._appraiser = appraiser
        self._limit = limit
        self._forwarded = forwarded
        self._context = context
        self._registry = registry or CollectorRegistry()
        self._metrics = Metrics(self._registry)
        self._ready = False
        self._runner = web.AppRunner(
            self._application(),
            access_log=None,
            handle_signals=False,
            shutdown_timeout=STOP_SECONDS,
            keepalive_timeout=KEEP_ALIVE_SECONDS,
        )

    async def start(self, listener: socket.socket) -> None:
        """Serves a listening socket."""
        await self._runner.setup()
        await web.SockSite(self._runner, listener, ssl_context=self._context).start()
        self._ready = True

    async def stop(self, *, drain_seconds: float = 0) -> None:
        """Says that it is not ready, goes on for `drain_seconds` so that a balancer notices, then ends."""
        self._ready = False
        await asyncio.sleep(drain_seconds)
        await self._runner.cleanup()

    def _application(self) -> web.Application:
        application = web.Application(client_max_size=MAX_BODY_BYTES, middlewares=[self._around])
        add = application.router.add_route
        for method, path, operation, handler in (
            ("POST", "/v1/nonces", "issueNonce", self._nonce),
            ("POST", "/v1/appraisals", "appraise", self._appraise),
            ("POST", "/attest/SgxEnclave", "attestSgxEnclave", self._attest_sgx),
            ("GET", "/certs", "getSigningCertificates", self._certificates),
            ("GET", "/.well-known/openid-configuration", "getOpenIdMetadata", self._metadata),
            ("GET", "/health/live", "live", self._live),
            ("GET", "/health/ready", "ready", self._is_ready),
            ("GET", "/metrics", "metrics", self._show_metrics),
            ("GET", "/openapi.json", "openapi", self._openapi),
        ):
            add(method, path, handler, name=operation)
        return application

    async def _nonce(self, _request: web.Request) -> web.Response:
        nonce, seconds = self._appraiser.issue_nonce()
        return answer(NonceAnswer(base64url(nonce), seconds))

    async def _appraise(self, request: web.Request) -> web.Response:
        body = await _body(request, AppraisalRequest)
        if (body.evidence is None) == (body.quote is None):
            raise RefusalError(
                400, "malformed-body", "exactly one of `evidence` and `quote` is needed", advice="see /openapi.json"
            )
        nonce = None if body.nonce is None else binary(body.nonce, "nonce")
        if body.evidence is not None:
            return answer(TokenAnswer(self._appraiser.appraise_evidence(binary(body.evidence, "evidence"), nonce)))
        return answer(TokenAnswer(self._appraiser.appraise_quote(binary(body.quote or "", "quote"), nonce)))

    async def _attest_sgx(self, request: web.Request) -> web.Response:
        body = await _body(request, AttestSgxRequest)
        return answer(TokenAnswer(self._appraiser.attest_sgx(binary(body.quote, "quote"), runtime_data(body))))

    async def _certificates(self, _request: web.Request) -> web.Response:
        return web.Response(body=msgspec.json.encode(self._appraiser.keyring.jwks()), content_type="application/json")

    async def _metadata(self, _request: web.Request) -> web.Response:
        signer = self._appraiser.keyring.signers[-1]
        metadata = {
            "issuer": signer.issuer,
            "jwks_uri": signer.jwks_uri,
            "response_types_supported": ["token"],
            "id_token_signing_alg_values_supported": ["RS256"],
        }
        return web.Response(body=msgspec.json.encode(metadata), content_type="application/json")

    async def _live(self, _request: web.Request) -> web.Response:
        return web.Response(text="live\n")

    async def _is_ready(self, _request: web.Request) -> web.Response:
        return web.Response(text="ready\n" if self._ready else "ending\n", status=200 if self._ready else 503)

    async def _show_metrics(self, _request: web.Request) -> web.Response:
        return web.Response(body=generate_latest(self._registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def _openapi(self, _request: web.Request) -> web.Response:
        return web.Response(body=document(), content_type="application/json")

    @web.middleware
    async def _around(self, request: web.Request, handler: _Handler) -> web.StreamResponse:
        """Limits, errors as answers, metrics."""
        begin = time.perf_counter()
        operation = request.match_info.route.name or "none"
        outcome = "ok"
        try:
            if request.method == hdrs.METH_POST:
                self._admit(request)
            return await handler(request)
        except EdgeclaveError as error:
            outcome = error.code
            if isinstance(error, ConfigurationError):
                _log.error("cannot answer", operation=operation, code=error.code, what=error.what)
                error = RefusalError(503, error.code, error.what, advice="try again later, or tell the operator")
            else:
                _log.info("refused", operation=operation, code=error.code, what=error.what)
            return error_answer(error)
        except web.HTTPException as http:
            outcome = {404: "no-such-path", 405: "method-not-allowed"}.get(http.status, "bad-request")
            return error_answer(RefusalError(http.status, outcome, http.reason, advice="see /openapi.json"))
        except Exception:
            outcome = "internal-error"
            _log.exception("request failed", operation=operation)
            return error_answer(RefusalError(500, outcome, "the verifier failed on this request", advice="see its log"))
        finally:
            self._metrics.requests.labels(operation, outcome).inc()
            self._metrics.seconds.labels(operation).observe(time.perf_counter() - begin)

    def _admit(self, request: web.Request) -> None:
        address = request.remote or ""
        if self._forwarded:
            address = request.headers.get("X-Forwarded-For", address).rpartition(",")[2].strip()
        wait = self._limit.admit(client_of(address))
        if wait:
            raise RefusalError(
                429, "too-many-requests", "too many requests of this client", advice="see Retry-After", retry_after=wait
            )


async def _body(request: web.Request, form: type[_Body]) -> _Body:
    if request.content_type != "application/json":
        raise RefusalError(415, "wrong-content-type", "the body must be application/json", advice="see /openapi.json")
    try:
        async with asyncio.timeout(BODY_SECONDS):
            return msgspec.json.decode(await request.read(), type=form)
    except web.HTTPRequestEntityTooLarge as error:
        raise RefusalError(
            413, "body-too-large", f"the body has more than {MAX_BODY_BYTES} bytes", advice="see /openapi.json"
        ) from error
    except TimeoutError as error:
        raise RefusalError(
            408, "body-too-slow", f"the body took more than {BODY_SECONDS:g} s to arrive", advice="send it again"
        ) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, web.RequestPayloadError) as error:
        raise RefusalError(
            400, "malformed-body", f"the body cannot be used: {error}", advice="see /openapi.json"
        ) from error
