//! What the server says of itself: its API, its health, its numbers.

use std::collections::{BTreeMap, BTreeSet};

use reqwest::Method;
use reqwest::header::{CONTENT_TYPE, ETAG, IF_NONE_MATCH};
use serde_json::{Value, json};

use crate::support::{Answer, Api, Receiver, Setup, TestHost};

/// Every operation that clients rely on, by the id that generated clients name it by. An id never changes.
const OPERATIONS: [(&str, &str); 91] = [
    ("health_check", "GET /healthz"),
    ("metrics_read", "GET /metrics"),
    ("readiness_check", "GET /readyz"),
    ("audit_list", "GET /v1/audit"),
    ("audit_verify", "GET /v1/audit/verify"),
    ("bulk_changes_list", "GET /v1/bulk"),
    ("bulk_changes_get", "GET /v1/bulk/{id}"),
    ("cron_runs_list", "GET /v1/cron/runs"),
    ("events_stream", "GET /v1/events"),
    ("groups_list", "GET /v1/groups"),
    ("groups_delete", "DELETE /v1/groups/{group}"),
    ("groups_get", "GET /v1/groups/{group}"),
    ("groups_patch", "PATCH /v1/groups/{group}"),
    ("groups_put", "PUT /v1/groups/{group}"),
    ("bulk_changes_create", "POST /v1/groups/{group}/bulk"),
    ("jobs_flush", "POST /v1/groups/{group}/flush"),
    ("jobs_list", "GET /v1/groups/{group}/jobs"),
    ("jobs_create", "POST /v1/groups/{group}/jobs"),
    ("jobs_create_batch", "POST /v1/groups/{group}/jobs/batch"),
    ("leases_create", "POST /v1/groups/{group}/leases"),
    ("groups_pause", "POST /v1/groups/{group}/pause"),
    ("policies_backtest", "POST /v1/groups/{group}/policy/backtest"),
    ("policy_changes_list", "GET /v1/groups/{group}/policy/history"),
    ("policy_versions_promote", "POST /v1/groups/{group}/policy/promote"),
    ("policy_versions_rollback", "POST /v1/groups/{group}/policy/rollback"),
    ("policy_shadows_delete", "DELETE /v1/groups/{group}/policy/shadow"),
    ("policy_shadows_get", "GET /v1/groups/{group}/policy/shadow"),
    ("policy_shadows_put", "PUT /v1/groups/{group}/policy/shadow"),
    ("policies_simulate", "POST /v1/groups/{group}/policy/simulate"),
    ("policies_unquarantine", "POST /v1/groups/{group}/policy/unquarantine"),
    ("policy_versions_list", "GET /v1/groups/{group}/policy/versions"),
    ("policy_versions_create", "POST /v1/groups/{group}/policy/versions"),
    ("policy_versions_get", "GET /v1/groups/{group}/policy/versions/{version}"),
    ("jobs_purge", "POST /v1/groups/{group}/purge"),
    ("jobs_redrive", "POST /v1/groups/{group}/redrive"),
    ("groups_resume", "POST /v1/groups/{group}/resume"),
    ("groups_count_jobs", "GET /v1/groups/{group}/stats"),
    ("jobs_list_all", "GET /v1/jobs"),
    ("jobs_cancel", "DELETE /v1/jobs/{id}"),
    ("jobs_get", "GET /v1/jobs/{id}"),
    ("jobs_edit", "PATCH /v1/jobs/{id}"),
    ("attempts_list", "GET /v1/jobs/{id}/attempts"),
    ("attempts_replay", "POST /v1/jobs/{id}/attempts/{number}/replay"),
    ("attempts_get_request", "GET /v1/jobs/{id}/attempts/{number}/request"),
    ("jobs_copy", "POST /v1/jobs/{id}/copy"),
    ("jobs_download_payload", "GET /v1/jobs/{id}/payload"),
    ("jobs_reschedule", "POST /v1/jobs/{id}/reschedule"),
    ("jobs_retry", "POST /v1/jobs/{id}/retry"),
    ("jobs_run", "POST /v1/jobs/{id}/run"),
    ("keys_list", "GET /v1/keys"),
    ("keys_delete", "DELETE /v1/keys/{key}"),
    ("keys_get", "GET /v1/keys/{key}"),
    ("keys_grant", "PATCH /v1/keys/{key}"),
    ("keys_put", "PUT /v1/keys/{key}"),
    ("key_versions_delete", "DELETE /v1/keys/{key}/versions/{version}"),
    ("leases_complete", "POST /v1/leases/{token}/complete"),
    ("leases_extend", "POST /v1/leases/{token}/extend"),
    ("leases_fail", "POST /v1/leases/{token}/fail"),
    ("leases_release", "POST /v1/leases/{token}/release"),
    ("nodes_list", "GET /v1/nodes"),
    ("plugins_list", "GET /v1/plugins"),
    ("plugins_get", "GET /v1/plugins/{plugin}"),
    ("plugin_versions_list", "GET /v1/plugins/{plugin}/versions"),
    ("plugin_versions_delete", "DELETE /v1/plugins/{plugin}/versions/{version}"),
    ("plugin_versions_get", "GET /v1/plugins/{plugin}/versions/{version}"),
    ("plugin_versions_deprecate", "PATCH /v1/plugins/{plugin}/versions/{version}"),
    ("plugin_versions_put", "PUT /v1/plugins/{plugin}/versions/{version}"),
    ("plugin_versions_download", "GET /v1/plugins/{plugin}/versions/{version}/component"),
    ("schedules_list", "GET /v1/schedules"),
    ("schedules_delete", "DELETE /v1/schedules/{schedule}"),
    ("schedules_get", "GET /v1/schedules/{schedule}"),
    ("schedules_patch", "PATCH /v1/schedules/{schedule}"),
    ("schedules_put", "PUT /v1/schedules/{schedule}"),
    ("schedules_backfill", "POST /v1/schedules/{schedule}/backfill"),
    ("schedule_history_list", "GET /v1/schedules/{schedule}/history"),
    ("schedules_pause", "POST /v1/schedules/{schedule}/pause"),
    ("schedules_resume", "POST /v1/schedules/{schedule}/resume"),
    ("schedules_run", "POST /v1/schedules/{schedule}/run"),
    ("schedule_runs_list", "GET /v1/schedules/{schedule}/runs"),
    ("tenants_list", "GET /v1/tenants"),
    ("tenants_delete", "DELETE /v1/tenants/{tenant}"),
    ("tenants_get", "GET /v1/tenants/{tenant}"),
    ("tenants_patch", "PATCH /v1/tenants/{tenant}"),
    ("tenants_put", "PUT /v1/tenants/{tenant}"),
    ("tenants_resume", "POST /v1/tenants/{tenant}/resume"),
    ("tenants_suspend", "POST /v1/tenants/{tenant}/suspend"),
    ("tokens_list", "GET /v1/tokens"),
    ("tokens_create", "POST /v1/tokens"),
    ("tokens_delete", "DELETE /v1/tokens/{id}"),
    ("tokens_rotate", "POST /v1/tokens/{id}/rotate"),
    ("tokens_whoami", "GET /v1/whoami"),
];

/// Fetches a description of the API.
async fn document(host: &TestHost, path: &str) -> Value {
    host.api.without_token().get(path).await.expect(200)
}

/// The operations of a description, with their ids.
fn operations(document: &Value) -> BTreeMap<String, String> {
    let id = |operation: &Value| operation["operationId"].as_str().unwrap_or_default().to_owned();
    let paths = document["paths"].as_object().unwrap().iter();
    let operations = paths.flat_map(|(path, methods)| {
        let methods = methods.as_object().unwrap().iter();
        methods.map(move |(method, operation)| (format!("{} {path}", method.to_uppercase()), id(operation)))
    });
    operations.collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_document_has_exactly_the_operations_that_there_are() {
    let host = TestHost::start().await;
    let known = OPERATIONS.iter().map(|(id, operation)| ((*operation).to_owned(), (*id).to_owned())).collect();
    for path in ["/openapi.json", "/openapi-3.0.json"] {
        assert_eq!(operations(&document(&host, path).await), known, "{path}");
    }
    for (_, operation) in OPERATIONS {
        let (method, path) = operation.split_once(' ').unwrap();
        let reply = host.api.raw(method.parse().unwrap(), &path.replace(['{', '}'], ""), "{}").await;
        assert!(reply.status != 405 && !reply.text().contains("nothing is served"), "{operation}: {}", reply.text());
    }
}

#[test]
fn operation_ids_are_unique_words_that_clients_can_be_made_of() {
    let ids: BTreeSet<&str> = OPERATIONS.iter().map(|(id, _)| *id).collect();
    assert_eq!(ids.len(), OPERATIONS.len());
    for id in ids {
        let words: Vec<&str> = id.split('_').collect();
        let is_word = |word: &&str| !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_lowercase());
        assert!(words.len() >= 2 && words.iter().all(is_word), "{id}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unknown_and_repeated_query_parameters_are_refused_on_every_route() {
    let host = TestHost::start().await;
    let described = document(&host, "/openapi.json").await;
    for (_, operation) in OPERATIONS {
        let (method, path) = operation.split_once(' ').unwrap();
        let refused = async |query: String| {
            let path = format!("{}?{query}", path.replace(['{', '}'], ""));
            let problem = host.api.raw(method.parse().unwrap(), &path, "{}").await.expect(400);
            (problem["parameter"].clone(), problem["detail"].as_str().unwrap().to_owned())
        };
        let (parameter, detail) = refused("zzz=1".to_owned()).await;
        assert_eq!(parameter, "zzz", "{operation}");
        assert!(detail.contains("there is no query parameter `zzz`"), "{operation}: {detail}");
        let own = described["paths"][path][method.to_lowercase()]["parameters"].as_array().cloned().unwrap_or_default();
        for parameter in own.iter().map(|parameter| resolved(&described, parameter)) {
            if parameter["in"] == "query" && parameter["name"] != "metadata" {
                let name = parameter["name"].as_str().unwrap();
                let value = if parameter["schema"]["type"] == "boolean" { "true" } else { "1" };
                let (_, detail) = refused(format!("{name}={value}&{name}={value}")).await;
                assert!(detail.contains("more than once"), "{operation} {name}: {detail}");
            }
        }
    }
}

/// A parameter, or the component that it refers to.
fn resolved<'a>(document: &'a Value, parameter: &'a Value) -> &'a Value {
    match parameter["$ref"].as_str() {
        Some(target) => document.pointer(target.trim_start_matches('#')).unwrap(),
        None => parameter,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn misspelt_filters_name_the_nearest_one() {
    let host = TestHost::start().await;
    host.api.put_group("g", json!({})).await;
    for (path, nearest) in [
        ("/v1/groups/g/jobs?sate=running", "state"),
        ("/v1/groups/g/jobs?states=dead", "state"),
        ("/v1/events?kinds=push", "kind"),
        ("/v1/groups/g?efective=true", "effective"),
    ] {
        let problem = host.api.get(path).await.expect(400);
        assert!(problem["detail"].as_str().unwrap().contains(&format!("did you mean `{nearest}`?")), "{problem}");
    }
    for path in ["/v1/groups/g/jobs?state=dead&metadata.a=1&metadata[b.c]=2&limit=5", "/v1/groups/g?effective=true"] {
        host.api.get(path).await.expect(200);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_in_json_end_in_a_line_break() {
    let host = TestHost::start().await;
    for path in ["/v1/groups", "/v1/groups/none", "/nowhere", "/openapi.json", "/v1/groups?x=1"] {
        let reply = host.api.get(path).await;
        assert!(reply.text().ends_with("}\n"), "{path}: {}", reply.text());
    }
}

/// The samples of an exposition in the OpenMetrics text format.
fn samples(text: &str) -> BTreeMap<String, f64> {
    let lines = text.strip_suffix("# EOF\n").expect("the text ends with its end").lines();
    let sample = |line: &str| {
        let (name, value) = line.rsplit_once(' ').expect("a name and a value");
        (name.to_owned(), value.parse().unwrap_or_else(|_| panic!("a number: {line}")))
    };
    lines.filter(|line| !line.starts_with('#')).map(sample).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_metrics_count_what_happens() {
    let (host, receiver) = (TestHost::start().await, Receiver::start().await);
    receiver.on("/500", [Answer::status(500)]);
    host.api.put_group("g", json!({"retry": {"config": {"max_attempts": 1}}})).await;
    for (path, state) in [("/a", "succeeded"), ("/b", "succeeded"), ("/500", "dead")] {
        let id = host.api.job_id("g", json!({"url": receiver.url(path)})).await;
        host.api.until_state(&id, state).await;
    }
    let reply = host.api.without_token().get("/metrics").await;
    assert!(reply.headers[CONTENT_TYPE].to_str().unwrap().starts_with("application/openmetrics-text"));
    let samples = samples(reply.text());
    for (name, value) in [
        ("carillon_jobs_accepted_total", 3.0),
        (r#"carillon_jobs_ended_total{state="succeeded"}"#, 2.0),
        (r#"carillon_jobs_ended_total{state="dead"}"#, 1.0),
        (r#"carillon_attempts_total{outcome="success"}"#, 2.0),
        (r#"carillon_attempts_total{outcome="retryable"}"#, 1.0),
        ("carillon_lateness_seconds_count", 3.0),
        ("carillon_exchange_seconds_count", 3.0),
        (r#"carillon_policy_call_seconds_count{role="judge"}"#, 3.0),
        (r#"carillon_http_requests_total{method="POST",route="/v1/groups/{group}/jobs",status="201"}"#, 3.0),
    ] {
        assert_eq!(samples.get(name), Some(&value), "{name}: {samples:#?}");
    }
    assert!(samples["carillon_store_commits_total"] > 0.0, "{samples:#?}");
    assert!(samples["carillon_store_commands_total"] >= samples["carillon_store_commits_total"], "{samples:#?}");
    assert!(samples["carillon_database_bytes"] > 0.0 && samples["process_resident_memory_bytes"] > 1e6, "{samples:#?}");
    assert!(samples.contains_key("carillon_store_errors_total"), "{samples:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_runs_is_alive_and_ready() {
    let host = TestHost::start().await;
    let nobody = host.api.without_token();
    assert_eq!(nobody.get("/healthz").await.text(), "ok\n");
    assert_eq!(nobody.get("/readyz").await.text(), "ready\nnodes 1\n");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_metrics_say_how_much_waits_and_for_how_long() {
    let clock = crate::support::ManualClock::new();
    let host = crate::support::Setup::with_clock(&clock).start().await;
    host.api.put_group("g", json!({})).await;
    host.api.post("/v1/groups/g/pause", json!({})).await.expect(200);
    for run_at in ["+0s", "+5s", "+1h"] {
        host.api.job_id("g", json!({"url": "http://127.0.0.1:9/", "run_at": run_at})).await;
    }
    clock.advance(std::time::Duration::from_secs(20));
    let samples = samples(host.api.get("/metrics").await.text());
    for (name, value) in
        [("carillon_jobs_waiting", 3.0), ("carillon_jobs_due", 2.0), ("carillon_oldest_due_job_age_seconds", 20.0)]
    {
        assert_eq!(samples.get(name), Some(&value), "{name}: {samples:#?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn description_is_not_sent_to_a_client_that_has_it() {
    let host = TestHost::start().await;
    let mut tags = BTreeSet::new();
    for path in ["/openapi.json", "/openapi-3.0.json"] {
        let first = host.api.without_token().get(path).await;
        let tag = first.headers[ETAG].to_str().unwrap().to_owned();
        let again = async |tags: &str| {
            let request = host.api.without_token().request(Method::GET, path).header(IF_NONE_MATCH, tags);
            host.api.send(request).await
        };
        for known in [tag.clone(), format!("W/{tag}"), format!("\"other\", {tag}"), "*".to_owned()] {
            let reply = again(&known).await;
            assert_eq!((reply.status, reply.body.len()), (304, 0), "{known}");
            assert_eq!(reply.headers[ETAG].to_str().unwrap(), tag);
        }
        let other = again("\"other\"").await;
        assert_eq!((other.status, &other.body), (200, &first.body));
        assert!(first.text().ends_with("}\n") && !first.text().ends_with("\n\n"));
        tags.insert(tag);
    }
    assert_eq!(tags.len(), 2, "each version has a tag of its own");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn description_can_be_switched_off() {
    let host = Setup::new().set("server.openapi", "false").start().await;
    for path in ["/openapi.json", "/openapi-3.0.json"] {
        host.api.get(path).await.problem(404);
    }
    host.api.get("/v1/groups").await.expect(200);
    host.api.get("/v1/groups?wrong=1").await.problem(400);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metrics_can_have_a_port_of_their_own() {
    let host = Setup::new().set("metrics.listen", "127.0.0.1:0").start().await;
    let own = Api::new(&format!("http://{}", host.metrics().unwrap()), None);
    host.api.get("/metrics").await.problem(404);
    let document = host.api.get("/openapi.json").await.expect(200);
    assert_eq!(document["paths"].get("/metrics"), None, "it says what is there");
    assert!(own.get("/metrics").await.text().contains("carillon_build_info"));
    for api in [&host.api.without_token(), &own] {
        assert_eq!(api.get("/healthz").await.text(), "ok\n");
        assert_eq!(api.get("/readyz").await.text(), "ready\nnodes 1\n");
    }
    for path in ["/v1/groups", "/openapi.json", "/compat/callme/"] {
        own.get(path).await.problem(404);
    }
    own.send(own.request(Method::POST, "/metrics")).await.problem(405);
}
