//! Responses that more than one operation has: a problem for each status, and their headers.

use serde_json::{Map, Value, json};

/// Media type of every problem (RFC 9457).
const PROBLEM_TYPE: &str = "application/problem+json";

/// Statuses of problems: the name of the component, and what the status means.
const PROBLEMS: [(&str, &str, &str); 14] = [
    (
        "400",
        "BadRequest",
        "The request is malformed: the body is not JSON or has the wrong shape, or a query parameter is unknown or invalid.",
    ),
    ("401", "Unauthenticated", "The request has no valid token."),
    ("403", "Forbidden", "The token's role does not allow the request."),
    ("404", "NotFound", "The resource does not exist, or belongs to another tenant."),
    ("408", "RequestTimeout", "The request was not received and processed in time."),
    ("409", "Conflict", "The request conflicts with the present state."),
    ("412", "PreconditionFailed", "The resource was changed since it was read."),
    ("413", "ContentTooLarge", "The body is larger than the server accepts."),
    ("415", "UnsupportedMediaType", "The body is compressed, or has a media type that the route does not accept."),
    ("422", "Invalid", "A member of the body has an invalid value; `pointer` names the member."),
    ("429", "TooManyRequests", "A quota is exhausted for now."),
    ("500", "InternalServerError", "The server failed; its log has the cause."),
    ("503", "Unavailable", "The server cannot process the request now; send it again after `Retry-After` seconds."),
    ("default", "OtherProblem", "Another problem."),
];

/// What the statuses of success mean, unless an operation says more.
const SUCCESSES: [(&str, &str); 4] = [
    ("200", "The request succeeded."),
    ("201", "The resource was created and is stored durably."),
    ("202", "The request was accepted and continues in the background."),
    ("204", "The request succeeded; the response has no body."),
];

/// Components `responses`: the problems.
pub(super) fn components() -> Value {
    let problem = |(status, name, description): &(&str, &str, &str)| {
        let schema = json!({"$ref": "#/components/schemas/Problem"});
        let mut response = json!({"description": description, "content": {PROBLEM_TYPE: {"schema": schema}}});
        match *status {
            "401" => response["headers"] = json!({"WWW-Authenticate": reference("headers", "WWW-Authenticate")}),
            "429" | "503" => response["headers"] = json!({"Retry-After": reference("headers", "Retry-After")}),
            _ => {}
        }
        ((*name).to_owned(), response)
    };
    PROBLEMS.iter().map(problem).collect::<Map<_, _>>().into()
}

/// Components `headers`.
pub(super) fn headers() -> Value {
    json!({
        "Idempotency-Replayed": {
            "description": "`true` if this is the stored response to an earlier request with the same `Idempotency-Key`.",
            "schema": {"type": "string", "enum": ["true"]},
        },
        "Retry-After": {
            "description": "Number of seconds after which to send the request again.",
            "schema": {"type": "integer", "minimum": 0},
        },
        "WWW-Authenticate": {"description": "Authentication scheme that the server accepts.", "schema": {"type": "string"}},
    })
}

/// The problem of a status, as a reference to its component.
pub(super) fn problem(status: &str) -> Option<Value> {
    let (_, name, _) = PROBLEMS.iter().find(|(known, ..)| *known == status)?;
    Some(reference("responses", name))
}

/// What a status of success means.
pub(super) fn success(status: &str) -> &'static str {
    SUCCESSES.iter().find(|(known, _)| *known == status).map_or("The request succeeded.", |(_, about)| about)
}

/// A reference to a component.
pub(super) fn reference(kind: &str, name: &str) -> Value {
    json!({"$ref": format!("#/components/{kind}/{name}")})
}
