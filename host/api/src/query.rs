//! Query parameters: what a route does not know, or is given twice, is refused and never ignored. What a route knows is what its description
//! says.

use std::collections::HashMap;

use axum::extract::{FromRequestParts, MatchedPath, Request};
use axum::http::Method;
use axum::http::request::Parts;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::error::Problem;
use carillon_core::json::nearest;

/// The parameters behind the path, of which [`check`] has seen that the route knows them.
pub struct Query<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let query = axum::extract::Query::from_request_parts(parts, state).await;
        query.map(|query| Self(query.0)).map_err(|_| Problem::malformed(None, "the query parameters cannot be read"))
    }
}

/// The labels that a query asks for: `metadata.KEY=VALUE` or `metadata[KEY]=VALUE`.
pub(super) fn labels(query: &[(String, String)]) -> impl Iterator<Item = (String, String)> {
    query.iter().filter_map(|(name, value)| Some((member(name, "metadata")?.to_owned(), value.clone())))
}

/// The member of an object that a parameter names, in one of the two writings.
fn member<'a>(name: &'a str, object: &str) -> Option<&'a str> {
    let rest = name.strip_prefix(object)?;
    rest.strip_prefix('.').or_else(|| rest.strip_prefix('[')?.strip_suffix(']'))
}

/// The query parameters of every route of the native API.
pub(super) struct KnownParameters(HashMap<(Method, String), Vec<Known>>);

/// A parameter that a route knows.
struct Known {
    name: String,
    form: Form,
}

/// What a parameter's value looks like.
enum Form {
    Text,
    Flag,
    Whole {
        least: i64,
        most: i64,
    },
    /// Members by name, each a parameter of its own.
    Object,
}

impl KnownParameters {
    /// Reads them from the API's description, before parameters are components.
    pub(super) fn from_description(routes: &utoipa::openapi::OpenApi) -> Self {
        let document = serde_json::to_value(routes).unwrap_or_default();
        let mut known = HashMap::new();
        for (path, methods) in document["paths"].as_object().into_iter().flatten() {
            for (method, operation) in methods.as_object().into_iter().flatten() {
                let Ok(method) = method.to_ascii_uppercase().parse::<Method>() else { continue };
                let parameters = operation["parameters"].as_array().into_iter().flatten();
                let parameters = parameters.filter(|parameter| parameter["in"] == "query");
                known.insert((method, path.clone()), parameters.filter_map(Known::from_description).collect());
            }
        }
        Self(known)
    }

    fn check(&self, method: &Method, path: &str, query: &str) -> Result<(), Problem> {
        let method = if method == Method::HEAD { Method::GET } else { method.clone() };
        let Some(known) = self.0.get(&(method, path.to_owned())) else { return Ok(()) };
        let mut seen = Vec::new();
        for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
            let parameter = known.iter().find_map(|known| known.meant_by(&name));
            let parameter = parameter.ok_or_else(|| unknown(&name, known))?;
            if seen.contains(&parameter) {
                return Err(Problem::parameter(
                    &name,
                    format!("the query parameter `{}` is given more than once", name.escape_debug()),
                ));
            }
            parameter.0.check(&value)?;
            seen.push(parameter);
        }
        Ok(())
    }
}

impl Known {
    fn from_description(parameter: &Value) -> Option<Self> {
        let schema = &parameter["schema"];
        let has_type = |kind: &str| {
            schema["type"] == kind || schema["type"].as_array().is_some_and(|types| types.iter().any(|it| it == kind))
        };
        let form = if parameter["style"] == "deepObject" {
            Form::Object
        } else if has_type("boolean") {
            Form::Flag
        } else if has_type("integer") {
            let bound = |name: &str, default| schema[name].as_i64().unwrap_or(default);
            Form::Whole { least: bound("minimum", i64::MIN), most: bound("maximum", i64::MAX) }
        } else {
            Form::Text
        };
        Some(Self { name: parameter["name"].as_str()?.to_owned(), form })
    }

    /// This parameter, and which member of it, if `name` means it.
    fn meant_by<'a>(&'a self, name: &str) -> Option<Meant<'a>> {
        match self.form {
            Form::Object => Some(Meant(self, Some(member(name, &self.name)?.to_owned()))),
            _ => (self.name == name).then_some(Meant(self, None)),
        }
    }

    fn check(&self, value: &str) -> Result<(), Problem> {
        let refused = |rule: String| {
            Err(Problem::parameter(&self.name, format!("`{}` is not allowed: {rule}", value.escape_debug())))
        };
        match self.form {
            Form::Flag if !["true", "false"].contains(&value) => refused("it must be `true` or `false`".to_owned()),
            Form::Whole { least, most } if !value.parse().is_ok_and(|number: i64| (least..=most).contains(&number)) => {
                refused(format!("it must be a whole number from {least} to {most}"))
            }
            _ => Ok(()),
        }
    }
}

/// A parameter that a query means: and the member of it, if it has members.
struct Meant<'a>(&'a Known, Option<String>);

impl PartialEq for Meant<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.0.name == other.0.name && self.1 == other.1
    }
}

fn unknown(name: &str, known: &[Known]) -> Problem {
    let names: Vec<&str> = known.iter().map(|known| known.name.as_str()).collect();
    let shown = name.escape_debug();
    let hint = match (nearest(name, names.iter().copied()), names.as_slice()) {
        (Some(nearest), _) => format!("did you mean `{nearest}`?"),
        (None, []) => "this route has none".to_owned(),
        (None, names) => format!("this route has `{}`", names.join("`, `")),
    };
    Problem::parameter(name, format!("there is no query parameter `{shown}`; {hint}"))
}

/// Refuses requests whose query is not one of their route's.
pub(super) fn check(known: &KnownParameters, request: &Request) -> Result<(), Problem> {
    if let (Some(query), Some(path)) = (request.uri().query(), request.extensions().get::<MatchedPath>()) {
        known.check(request.method(), path.as_str(), query)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn known() -> KnownParameters {
        let parameter = |name: &str, schema: Value| json!({"in": "query", "name": name, "schema": schema});
        let mut labels = parameter("metadata", json!({"type": ["object", "null"]}));
        labels["style"] = "deepObject".into();
        let parameters = [
            parameter("state", json!({"type": "string"})),
            parameter("limit", json!({"type": ["integer", "null"], "minimum": 1, "maximum": 10})),
            parameter("effective", json!({"type": "boolean"})),
            labels,
            json!({"in": "path", "name": "group", "schema": {"type": "string"}}),
        ];
        let known = parameters
            .iter()
            .filter(|parameter| parameter["in"] == "query")
            .filter_map(Known::from_description)
            .collect();
        KnownParameters(HashMap::from([
            ((Method::GET, "/jobs".to_owned()), known),
            ((Method::POST, "/jobs".to_owned()), Vec::new()),
        ]))
    }

    fn refused(method: Method, query: &str) -> Option<String> {
        known().check(&method, "/jobs", query).err().map(|problem| problem.detail().to_owned())
    }

    #[test]
    fn known_parameters_once_each_are_taken() {
        for query in
            ["", "state=dead&limit=10&effective=true", "metadata.a=1&metadata[b]=2&metadata.a.b=3", "metadata%5Ba%5D=1"]
        {
            assert_eq!(refused(Method::GET, query), None, "{query}");
            assert_eq!(refused(Method::HEAD, query), None, "{query}");
        }
    }

    #[test]
    fn unknown_parameters_are_refused_with_the_nearest_name() {
        assert_eq!(
            refused(Method::GET, "sate=1").unwrap(),
            "there is no query parameter `sate`; did you mean `state`?"
        );
        assert!(refused(Method::GET, "xyz=1").unwrap().contains("this route has `state`, `limit`"));
        assert!(refused(Method::POST, "state=dead").unwrap().contains("this route has none"));
        for query in ["metadata=x", "group=g", "State=dead", "metadata[a=1", "=", "&&x"] {
            assert!(refused(Method::GET, query).is_some(), "{query}");
        }
    }

    #[test]
    fn repeated_parameters_are_refused_in_every_writing() {
        for query in ["state=dead&state=dead", "st%61te=dead&state=dead", "metadata.a=1&metadata[a]=1"] {
            assert!(refused(Method::GET, query).unwrap().contains("more than once"), "{query}");
        }
    }

    #[test]
    fn values_of_another_type_are_refused_with_the_rule() {
        for limit in ["0", "11", "-1", "x", "", "1.0", "99999999999999999999"] {
            assert!(refused(Method::GET, &format!("limit={limit}")).unwrap().contains("from 1 to 10"), "{limit}");
        }
        assert!(refused(Method::GET, "effective=1").unwrap().contains("`true` or `false`"));
    }
}
