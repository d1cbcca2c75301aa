//! The operations of the API, by its own document.

use reqwest::Method;

use super::Api;

/// Operations that need no token.
pub const OPEN: [&str; 3] = ["/healthz", "/readyz", "/metrics"];

/// Every operation of the document behind the door, with its parameters filled in.
pub async fn closed_operations(api: &Api) -> Vec<(Method, String)> {
    let document = api.get("/openapi.json").await.expect(200);
    let mut operations = Vec::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        let filled = path.split('/').map(|part| if part.starts_with('{') { "x" } else { part });
        let filled = filled.collect::<Vec<_>>().join("/");
        for method in methods.as_object().unwrap().keys().filter(|_| !OPEN.contains(&path.as_str())) {
            operations.push((method.to_uppercase().parse().unwrap(), filled.clone()));
        }
    }
    assert!(operations.len() >= 25, "the document has the routes: {operations:?}");
    operations
}
