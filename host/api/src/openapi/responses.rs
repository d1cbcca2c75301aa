//! Responses that more than one operation has: a problem for each status, and their headers.

use serde_json::{Map, Value, json};

/// Media type of every problem (RFC 9457).
const PROBLEM_TYPE: &str = "application/problem+json";

/// Statuses of problems: the name of the component, and what the status means.
const PROBLEMS: [(&str, &str, &str); 14] = [
    (
        "400",
        "BadRequest",
        "The request cannot be read: its body is not JSON of the right shape, or a query parameter is not one of the route's.",
    ),
    ("401", "Unauthenticated", "A valid token is needed."),
    ("403", "Forbidden", "The token does not allow this."),
    ("404", "NotFound", "There is no such thing, or it belongs to another tenant."),
    ("408", "RequestTimeout", "The request did not arrive, or could not be answered, in time."),
    ("409", "Conflict", "The present state does not allow this."),
    ("412", "PreconditionFailed", "It was changed since it was read."),
    ("413", "ContentTooLarge", "The body is larger than this server takes."),
    ("415", "UnsupportedMediaType", "The body is compressed, or of another type than this route takes."),
    ("422", "Invalid", "A field of the body has a value that is not possible; `pointer` says which."),
    ("429", "TooManyRequests", "A quota is used up for now."),
    ("500", "InternalServerError", "The server failed; its log says why."),
    ("503", "Unavailable", "The server cannot do this now; try again after `Retry-After` seconds."),
    ("default", "OtherProblem", "Another problem."),
];

/// What the statuses of success mean, unless an operation says more.
const SUCCESSES: [(&str, &str); 4] = [
    ("200", "The request was carried out."),
    ("201", "It was made, and is stored durably."),
    ("202", "The request was accepted, and is carried out in the background."),
    ("204", "The request was carried out; there is nothing to show."),
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
            "description": "`true` if this is the response that was given before to a request with this `Idempotency-Key`.",
            "schema": {"type": "string", "enum": ["true"]},
        },
        "Retry-After": {
            "description": "After how many seconds another try makes sense.",
            "schema": {"type": "integer", "minimum": 0},
        },
        "WWW-Authenticate": {"description": "How to authenticate.", "schema": {"type": "string"}},
    })
}

/// The problem of a status, as a reference to its component.
pub(super) fn problem(status: &str) -> Option<Value> {
    let (_, name, _) = PROBLEMS.iter().find(|(known, ..)| *known == status)?;
    Some(reference("responses", name))
}

/// What a status of success means.
pub(super) fn success(status: &str) -> &'static str {
    SUCCESSES.iter().find(|(known, _)| *known == status).map_or("The request was carried out.", |(_, about)| about)
}

/// A reference to a component.
pub(super) fn reference(kind: &str, name: &str) -> Value {
    json!({"$ref": format!("#/components/{kind}/{name}")})
}
