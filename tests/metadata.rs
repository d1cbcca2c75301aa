//! A job's labels: kept as they were written, and sent as headers when asked for.

use serde_json::{Value, json};

use crate::support::{ADMIN_TOKEN, Arrival, Receiver, TestHost, id_of, run};

const NOWHERE: &str = "http://127.0.0.1:1/";

/// The headers of an arrival that carry metadata.
fn metadata_headers(arrival: &Arrival) -> Vec<(&str, &str)> {
    let ours = arrival.headers.iter().filter(|(name, _)| name.starts_with("carillon-metadata-"));
    let mut found: Vec<_> = ours.map(|(name, value)| (name.as_str(), std::str::from_utf8(value).unwrap())).collect();
    found.sort_unstable();
    found
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metadata_is_shown_as_it_was_written() {
    let host = TestHost::start().await;
    host.api.put_group("g", json!({})).await;
    let written = json!({"k": "v", "billing": {"invoice": "17", "größe": "XL"}, "a.b": "c", "none": {}});
    let job = json!({"url": NOWHERE, "run_at": "+1h", "metadata": written});
    let made = host.api.post_job("g", job).await;
    assert_eq!((&made["metadata"], &made["metadata_headers"]), (&written, &json!(false)));
    assert_eq!(host.api.job(&id_of(&made)).await["metadata"], written);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metadata_goes_out_as_headers_when_asked_for() {
    let (host, receiver) = (TestHost::start().await, Receiver::start().await);
    host.api.put_group("g", json!({})).await;
    let metadata = json!({"k": "v", "trace_id": "a%b", "billing": {"invoice": "17", "to": "Zoë & co"}});
    let job = |path: &str, more: Value| {
        let mut job = json!({"url": receiver.url(path), "metadata": metadata});
        job.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        job
    };
    host.api.job_id("g", job("/without", json!({}))).await;
    assert_eq!(metadata_headers(&receiver.arrived("/without", 1).await[0]), []);

    let own = json!({"metadata_headers": true, "headers": {"Carillon-Metadata-K": "forged"}});
    host.api.job_id("g", job("/with", own)).await;
    let expected = [
        ("carillon-metadata-billing-invoice", "17"),
        ("carillon-metadata-billing-to", "Zo%C3%AB%20&%20co"),
        ("carillon-metadata-k", "v"),
        ("carillon-metadata-trace-id", "a%25b"),
    ];
    assert_eq!(metadata_headers(&receiver.arrived("/with", 1).await[0]), expected);

    let trial = json!({"job": job("/with", json!({"metadata_headers": true}))});
    let foretold = host.api.post("/v1/groups/g/policy/simulate", trial).await.expect(200);
    let headers = foretold["request"]["headers"].as_array().unwrap();
    assert!(headers.contains(&json!({"name": "carillon-metadata-billing-invoice", "value": "17"})), "{foretold}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metadata_that_makes_no_sense_is_refused_by_field() {
    let host = TestHost::start().await;
    host.api.put_group("g", json!({})).await;
    let many: serde_json::Map<_, _> = (0..65).map(|n| (n.to_string(), json!("v"))).collect();
    for (metadata, headers, pointer) in [
        (json!({"billing.invoice": "1", "billing": {"invoice": "2"}}), false, "/metadata/billing.invoice"),
        (json!({"a": {"b.c": "1"}, "a.b": {"c": "2"}}), false, "/metadata/a.b/c"),
        (json!({"n": many}), false, "/metadata"),
        (json!({"n": {"k": "x".repeat(9_000)}}), false, "/metadata"),
        (json!({"größe": "XL"}), true, "/metadata/größe"),
        (json!({"n": {"a b": "c"}}), true, "/metadata/n/a b"),
        (json!({"": "empty"}), true, "/metadata/"),
        (json!({"a_b": "1", "A-b": "2"}), true, "/metadata/a_b"),
        (json!({"k": "ü".repeat(2_000)}), true, "/metadata"),
    ] {
        let job = json!({"url": NOWHERE, "metadata": metadata, "metadata_headers": headers});
        host.api.post("/v1/groups/g/jobs", job).await.problem_at(422, pointer);
    }
    for (metadata, pointer) in [
        (json!({"n": {"k": 1}}), "/metadata/n/k"),
        (json!({"n": {"deeper": {"k": "v"}}}), "/metadata/n/deeper"),
        (json!({"n": ["v"]}), "/metadata/n"),
        (json!([]), "/metadata"),
    ] {
        host.api
            .post("/v1/groups/g/jobs", json!({"url": NOWHERE, "metadata": metadata}))
            .await
            .problem_at(400, pointer);
    }
    let fine = json!({"größe": "XL", "a_b": "1", "A-b": "2"});
    host.api.post_job("g", json!({"url": NOWHERE, "run_at": "+1h", "metadata": fine})).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_command_line_takes_namespaces_and_headers() {
    let (host, receiver) = (TestHost::start().await, Receiver::start().await);
    host.api.put_group("g", json!({})).await;
    let url = receiver.url("/a");
    let environment = [("CARILLON_SERVER", host.base.as_str()), ("CARILLON_TOKEN", ADMIN_TOKEN)];
    let flags = ["-m", "k=v", "--metadata-json", r#"{"billing": {"invoice": "17"}}"#, "--metadata-headers", "--json"];
    let made = run(&[&["job", "create", "g", &url][..], &flags].concat(), &environment, "").await.json();
    assert_eq!(made["metadata"], json!({"k": "v", "billing": {"invoice": "17"}}));
    let expected = [("carillon-metadata-billing-invoice", "17"), ("carillon-metadata-k", "v")];
    assert_eq!(metadata_headers(&receiver.arrived("/a", 1).await[0]), expected);
}
