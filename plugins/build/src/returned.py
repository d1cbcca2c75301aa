"""What a call may return: checked here, because the runtime traps on anything else and does not say why."""


class WrongType(TypeError):
    """A result that the interface does not take."""


def _described(value):
    if value is None:
        return "None"
    if isinstance(value, str):
        return repr(value[:40])
    return f"a value of the type {type(value).__name__}"


def _expect(holds, place, expected, value):
    if not holds:
        raise WrongType(f"{place} must be {expected}, not {_described(value)}")


def _members(result, kind, names, function):
    has_all = all(hasattr(result, name) for name in names)
    _expect(has_all, f"the result of `{function}`", f"a {kind}", result)


def _is(kind, words):
    return lambda value, place: _expect(isinstance(value, kind), place, words, value)


_text, _bytes = _is(str, "a str"), _is(bytes, "bytes")


def _headers(headers, of):
    _expect(isinstance(headers, list), f"`headers` of the {of}", "a list of Header", headers)
    for index, header in enumerate(headers):
        has_both = hasattr(header, "name") and hasattr(header, "value")
        _expect(has_both, f"`headers[{index}]` of the {of}", "a Header", header)
        _text(header.name, f"`headers[{index}].name` of the {of}")
        _bytes(header.value, f"`headers[{index}].value` of the {of}")


def _describe(result):
    names = ("name", "version", "summary", "config_schema")
    _members(result, "Description", names, "describe")
    for name in names:
        _text(getattr(result, name), f"`{name}` of the description")


def _encode(result):
    _members(result, "Request", ("method", "url", "headers", "body"), "encode")
    _text(result.method, "`method` of the request")
    _text(result.url, "`url` of the request")
    _headers(result.headers, "request")
    _bytes(result.body, "`body` of the request")


def _sign(result):
    _members(result, "Signed", ("headers", "body"), "sign")
    _headers(result.headers, "signature")
    if result.body is not None:
        _expect(isinstance(result.body, bytes), "`body` of the signature", "bytes or None", result.body)


def _judge(result):
    _members(result, "Verdict", ("outcome", "reason"), "judge")
    is_outcome = type(result.outcome).__name__ == "Outcome"
    _expect(is_outcome, "`outcome` of the verdict", "an Outcome", result.outcome)
    _text(result.reason, "`reason` of the verdict")


def _next(result):
    kind = type(result).__name__
    is_decision = kind in ("Decision_AfterMs", "Decision_GiveUp")
    _expect(is_decision, "the result of `next`", "a Decision_AfterMs or a Decision_GiveUp", result)
    if kind == "Decision_GiveUp":
        _text(result.value, "`value` of Decision_GiveUp")
    else:
        value = result.value
        is_time = isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**64
        _expect(is_time, "`value` of Decision_AfterMs", "an int of at least 0", value)


RETURNED = {"describe": _describe, "encode": _encode, "sign": _sign, "judge": _judge, "next": _next}
