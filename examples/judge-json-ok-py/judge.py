"""A judge for receivers that answer 200 to everything: the body ``{"ok": false}`` is a failure."""

import json

from wit_world import exports
from wit_world.exports.judge import Exchange_Response, Outcome, Verdict
from wit_world.exports.meta import Description
from wit_world.imports import log


class Meta(exports.Meta):
    """What the plugin says of itself."""

    def describe(self):
        return Description(
            name="judge-json-ok-py",
            version="0.1.0",
            summary="An answer that says it failed has failed, even with status 200.",
            config_schema='{"type": "object", "additionalProperties": false}',
        )

    def check(self, config):
        """There are no settings, and the schema says so."""


class Judge(exports.Judge):
    """The role."""

    def judge(self, attempt, config, exchange):
        if not isinstance(exchange, Exchange_Response):
            return Verdict(Outcome.RETRYABLE, exchange.value.message)
        status = exchange.value.status
        if not 200 <= status < 300:
            return Verdict(Outcome.RETRYABLE, f"The status is {status}.")
        if says_no(exchange.value.body):
            return Verdict(Outcome.RETRYABLE, "The body says that it failed.")
        return Verdict(Outcome.SUCCESS, f"The status is {status}.")


def says_no(body):
    """Whether the bytes are JSON that says so."""
    try:
        answer = json.loads(body)
    except ValueError as error:
        log.write(log.Level.DEBUG, f"The body is not JSON: {error}")
        return False
    return isinstance(answer, dict) and answer.get("ok") is False
