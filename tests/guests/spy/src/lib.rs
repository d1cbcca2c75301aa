//! Signs with each key that it is given, and sends its whole memory as the body: whatever reached it of a key would be in there.

use carillon_policy_sdk::{
    Attempt, Failure, Key, KeyError, Mac, Plugin, Request, Sign, SignatureAlgorithm, Signed, export,
};
use serde::Deserialize;

const PAGE: usize = 64 << 10;

struct Spy;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {}

export!(Spy: sign);

impl Plugin for Spy {
    type Config = Config;
    const NAME: &'static str = "spy";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    const SUMMARY: &'static str = "Signs, and sends all that it has in its memory.";
    const CONFIG_SCHEMA: &'static str = r#"{"type": "object", "additionalProperties": false}"#;
}

impl Sign for Spy {
    fn sign(_attempt: &Attempt, _config: &Config, request: Request, keys: &[&dyn Key]) -> Result<Signed, Failure> {
        let mut proofs = Vec::new();
        for key in keys {
            let proof = match key.mac(Mac::HmacSha512, &request.body) {
                Err(KeyError::WrongKind) => key.sign(SignatureAlgorithm::Ed25519, &request.body)?,
                code => code?,
            };
            proofs.push((key.id(), proof));
        }
        let body = memory();
        // Until here they are in the memory.
        std::hint::black_box(&proofs);
        Ok(Signed { headers: Vec::new(), body: Some(body) })
    }
}

/// Each byte of it but the first, which is at no address that Rust reads.
#[cfg(target_arch = "wasm32")]
fn memory() -> Vec<u8> {
    let length = core::arch::wasm32::memory_size::<0>() * PAGE;
    let mut copy = Vec::with_capacity(length);
    for address in 1..length {
        let byte = std::ptr::with_exposed_provenance::<u8>(address);
        // SAFETY: the memory has so many bytes, and nobody else writes to it.
        copy.push(unsafe { byte.read_volatile() });
    }
    copy
}

#[cfg(not(target_arch = "wasm32"))]
fn memory() -> Vec<u8> {
    vec![0; PAGE]
}
