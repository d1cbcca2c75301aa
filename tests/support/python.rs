//! Python with the libraries of tests/requirements.txt.

use std::path::PathBuf;

use serde_json::Value;
use tokio::io::AsyncWriteExt as _;

use super::{repository, soon};

/// Names the interpreter that has the libraries of tests/requirements.txt.
const INTERPRETER: &str = "CARILLON_TEST_PYTHON";

/// A Python that has the libraries of tests/requirements.txt; their programs are next to it.
pub fn interpreter() -> PathBuf {
    let named = std::env::var_os(INTERPRETER).map(PathBuf::from);
    let path = named.unwrap_or_else(|| repository().join(".venv/bin/python3"));
    assert!(
        path.exists(),
        "there is no {}: run `script/bootstrap test`, or name an interpreter with {INTERPRETER}",
        path.display()
    );
    path
}

/// Program for [`ask_python`]: reads {"headers", "body", "secrets"} and prints which of the secrets Stripe's library takes.
pub const STRIPE: &str = r#"
import json, sys, stripe
asked = json.load(sys.stdin)
def takes(secret):
    try:
        return stripe.WebhookSignature.verify_header(asked["body"], asked["headers"]["stripe-signature"], secret, tolerance=60)
    except stripe.SignatureVerificationError:
        return False
print(json.dumps([takes(secret) for secret in asked["secrets"]]))
"#;

/// What a program that reads JSON and writes JSON answers.
pub async fn ask_python(program: &str, asked: &Value) -> Value {
    let mut command = tokio::process::Command::new(interpreter());
    command.args(["-c", program]).stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
    let mut child = command.kill_on_drop(true).spawn().unwrap();
    child.stdin.take().unwrap().write_all(asked.to_string().as_bytes()).await.unwrap();
    let output = soon("python answers", child.wait_with_output()).await.unwrap();
    assert!(
        output.status.success(),
        "python fails; its libraries are in tests/requirements.txt: `script/bootstrap test`"
    );
    serde_json::from_slice(&output.stdout).unwrap()
}
