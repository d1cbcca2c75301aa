//! Flask's session: the text `P "." T "." S` of itsdangerous' `URLSafeTimedSerializer`.
//!
//! P is base64 of compact JSON, or `"."` and base64 of its zlib stream where that is shorter; T is base64 of the Unix time as a
//! big-endian number without leading zero bytes; S is base64 of `HMAC-SHA1(derived, P "." T)` with
//! `derived = HMAC-SHA1(secret, salt)` (`key_derivation="hmac"`). All base64 is URL-safe and without padding.
//!
//! The host computes the derived key. It does enter the plugin, unlike the secret, which cannot be found from it.

use carillon_policy_sdk::{Failure, Key, Mac};
use hmac::{Hmac, KeyInit, Mac as _};
use miniz_oxide::deflate::compress_to_vec_zlib;
use sha1::Sha1;

use crate::json::{self, Style};
use crate::{Config, members, payload_failure, url_base64};

/// zlib's own default, and itsdangerous'.
const COMPRESSION_LEVEL: u8 = 6;

/// Signs a JSON object.
pub(crate) fn sign(body: &[u8], config: &Config, now_s: u64, key: &dyn Key) -> Result<Vec<u8>, Failure> {
    let members = members(body)?;
    let json = json::render_object(members, Style::ITSDANGEROUS).map_err(payload_failure)?;
    let covered = format!("{}.{}", payload(json.as_bytes()), url_base64(big_endian(now_s).as_slice()));
    let derived = key.mac(Mac::HmacSha1, config.salt().as_bytes())?;
    let mut mac = Hmac::<Sha1>::new_from_slice(&derived)
        .map_err(|_| Failure::policy("bad-derived-key", "HMAC refuses the derived key."))?;
    mac.update(covered.as_bytes());
    let mut text = covered.into_bytes();
    text.push(b'.');
    text.extend_from_slice(url_base64(&mac.finalize().into_bytes()).as_bytes());
    Ok(text)
}

/// itsdangerous compresses where that saves more than the byte which says so.
fn payload(json: &[u8]) -> String {
    let compressed = compress_to_vec_zlib(json, COMPRESSION_LEVEL);
    if compressed.len() + 1 < json.len() { format!(".{}", url_base64(&compressed)) } else { url_base64(json) }
}

fn big_endian(number: u64) -> Vec<u8> {
    number.to_be_bytes().into_iter().skip_while(|byte| *byte == 0).collect()
}
