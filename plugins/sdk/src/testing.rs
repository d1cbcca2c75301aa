//! Stand-ins for the host, for a plugin's unit tests.

use hmac::{Hmac, KeyInit, Mac as _};

use crate::{
    Attempt, Attribute, Exchange, Header, Key, KeyError, Mac, NewJob, Outcome, Plugin, Request, Response,
    SignatureAlgorithm, Verdict, glue,
};

/// A key whose bytes are in the test. MACs only.
#[derive(Clone, Debug)]
pub struct StaticKey {
    id: String,
    secret: Vec<u8>,
}

impl StaticKey {
    /// A key of that name over these bytes, of any length.
    pub fn new(id: impl Into<String>, secret: impl Into<Vec<u8>>) -> Self {
        Self { id: id.into(), secret: secret.into() }
    }
}

impl Key for StaticKey {
    fn id(&self) -> String {
        self.id.clone()
    }

    fn mac(&self, algorithm: Mac, data: &[u8]) -> Result<Vec<u8>, KeyError> {
        macro_rules! hmac {
            ($hash:ty) => {{
                let mut mac = Hmac::<$hash>::new_from_slice(&self.secret).map_err(|_| KeyError::WrongKind)?;
                mac.update(data);
                mac.finalize().into_bytes().to_vec()
            }};
        }
        Ok(match algorithm {
            Mac::HmacSha1 => hmac!(sha1::Sha1),
            Mac::HmacSha256 => hmac!(sha2::Sha256),
            Mac::HmacSha512 => hmac!(sha2::Sha512),
        })
    }

    /// Always [`KeyError::WrongKind`], as the host answers for a key made for MACs.
    fn sign(&self, _algorithm: SignatureAlgorithm, _data: &[u8]) -> Result<Vec<u8>, KeyError> {
        Err(KeyError::WrongKind)
    }
}

/// Parses a config and checks it, as the host does when a binding is created; the schema is the host's part and left out.
pub fn config<P: Plugin>(json: &str) -> Result<P::Config, String> {
    let config = glue::parse_config::<P>(json)?;
    P::check(&config)?;
    Ok(config)
}

/// The jobs that this thread's observers have asked for since the last time.
pub fn asked_jobs() -> Vec<NewJob> {
    #[cfg(not(target_arch = "wasm32"))]
    return crate::jobs::ASKED.take();
    #[cfg(target_arch = "wasm32")]
    Vec::new()
}

/// The contents of the ```` ```json ```` blocks of a text: lets a test check the examples of a README.
pub fn json_blocks(markdown: &str) -> impl Iterator<Item = &str> {
    markdown.split("```json\n").skip(1).filter_map(|rest| rest.split("```").next())
}

/// An attempt of that number, accepted at 1,000 s after the epoch and made `elapsed_ms` later.
pub fn attempt(number: u32, elapsed_ms: u64) -> Attempt {
    const CREATED_MS: u64 = 1_000_000;
    let now_ms = CREATED_MS.saturating_add(elapsed_ms);
    Attempt {
        job_id: "0198f2c0-0000-7000-8000-000000000001".to_owned(),
        group: "reminders".to_owned(),
        number,
        run_at_ms: now_ms,
        now_ms,
        created_ms: CREATED_MS,
        deadline_ms: None,
        seed: 7,
        attributes: Vec::new(),
    }
}

/// A `POST` of that body, labelled as JSON.
pub fn request(body: impl Into<Vec<u8>>) -> Request {
    Request {
        method: "POST".to_owned(),
        url: "https://receiver.example/hook".to_owned(),
        headers: vec![Header { name: "content-type".to_owned(), value: b"application/json".to_vec() }],
        body: body.into(),
    }
}

/// A whole answer without headers.
pub fn response(status: u16, body: impl Into<Vec<u8>>) -> Exchange {
    Exchange::Response(Response { status, headers: Vec::new(), body: body.into(), truncated: false, elapsed_ms: 12 })
}

/// A retryable verdict, as `retry` gets it.
pub fn retryable() -> Verdict {
    Verdict { outcome: Outcome::Retryable, reason: "status 503".to_owned() }
}

/// One fact for [`Attempt::attributes`].
pub fn attribute(key: &str, value: &str) -> Attribute {
    Attribute { key: key.to_owned(), value: value.to_owned() }
}
