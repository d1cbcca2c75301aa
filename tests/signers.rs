//! Tenants that take signed plugins only.

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{ADMIN_TOKEN, JUDGE_PATH, Setup, TestHost, judge, run, upload};

/// A key that OpenSSL has made.
const PUBLIC: &str = "-----BEGIN PUBLIC KEY-----
MCowBQYDK2VwAyEAB1bhekLxUbpvwZ1k78FkHA19w8Hzlx0+YHy0yaVeSJU=
-----END PUBLIC KEY-----
";

const TENANT: &str = "/v1/tenants/default";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tenant_with_signers_takes_what_they_signed_and_nothing_else() {
    let (host, directory) = (TestHost::start().await, tempfile::tempdir().unwrap());
    let file = |name: &str| directory.path().join(name).display().to_string();
    let bytes = judge().await;
    std::fs::write(file("judge.wasm"), &bytes).unwrap();
    for name in ["ci", "stranger"] {
        let public = run(&["plugin", "keygen", &file(name)], &[], "").await;
        assert!(public.ok().starts_with("-----BEGIN PUBLIC KEY-----"), "{public:?}");
        std::fs::write(file(&format!("{name}.pub")), public.ok()).unwrap();
    }
    assert!(run(&["plugin", "keygen", &file("ci")], &[], "").await.error(1).contains("cannot be written"));
    let server = [("CARILLON_SERVER", host.base.as_str()), ("CARILLON_TOKEN", ADMIN_TOKEN)];
    let push = async |options: &[&str]| {
        let wasm = file("judge.wasm");
        run(&[&["plugin", "push", "judge-json-ok@0.1.0", &wasm], options].concat(), &server, "").await
    };
    std::fs::write(file("openssl.pub"), PUBLIC).unwrap();
    let signers = [format!("openssl={}", file("openssl.pub")), format!("ci={}", file("ci.pub"))];
    let put = ["tenant", "put", "default", "--plugin-signer", &signers[0], "--plugin-signer", &signers[1]];
    run(&put, &server, "").await.ok();
    let shown = host.api.get(TENANT).await.expect(200);
    let shown = shown["plugin_signers"].as_array().unwrap();
    assert!(shown.contains(&json!({"name": "openssl", "public_key": PUBLIC})), "{shown:?}");
    assert_eq!(shown.len(), 2);

    let problem = upload(&host.api, JUDGE_PATH, bytes.clone()).await.problem(403);
    assert!(problem["detail"].as_str().unwrap().contains("Carillon-Signature"), "{problem}");
    assert!(push(&["--signing-key", &file("stranger")]).await.error(1).contains("not by one of the tenant's signers"));
    assert!(push(&["--signing-key", &file("ci.pub")]).await.error(1).contains("openssl genpkey"));
    let forged = host.api.request(Method::PUT, JUDGE_PATH).header("carillon-signature", "AAAA").body(bytes.clone());
    host.api.send(forged).await.problem(403);
    host.api.get(JUDGE_PATH).await.problem(404);

    let pushed = push(&["--signing-key", &file("ci"), "--json"]).await.json();
    assert_eq!(pushed["signed_by"], "ci");
    assert_eq!(host.api.get(JUDGE_PATH).await.expect(200)["signed_by"], "ci");
    upload(&host.api, JUDGE_PATH, bytes.clone()).await.expect(200);

    // Another tenant is another matter, and without signers anything goes again.
    let other = host.api.tenant("other").await;
    assert_eq!(upload(&other, JUDGE_PATH, bytes.clone()).await.expect(201)["signed_by"], Value::Null);
    host.api.put(TENANT, json!({})).await.expect(200);
    host.api.delete(JUDGE_PATH).await.expect(204);
    upload(&host.api, JUDGE_PATH, bytes).await.expect(201);
    let odd = json!({"plugin_signers": [{"name": "a", "public_key": "ssh-ed25519 AAAA"}]});
    host.api.put(TENANT, odd).await.problem_at(422, "/plugin_signers/0/public_key");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_configuration_can_name_them() {
    let host = Setup::new()
        .file(&format!("[[tenants.acme.plugin_signers]]\nname = \"ci\"\npublic_key = \"\"\"{PUBLIC}\"\"\"\n"))
        .start()
        .await;
    let acme = host.api.for_tenant("acme");
    upload(&acme, JUDGE_PATH, judge().await).await.problem(403);
    let token = acme.post("/v1/tokens", json!({"role": "admin"})).await.expect(201);
    let admin = acme.with_token(token["token"].as_str().unwrap());
    admin.put("/v1/tenants/acme", json!({})).await.problem(403);
}
