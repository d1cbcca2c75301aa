//! The encoders and signers that the server brings along: any config and any payload give a request that can be sent, or a failure.

use base64_envelope::Base64Envelope;
use carillon_policy_sdk::testing::{StaticKey, attempt, config, request};
use carillon_policy_sdk::{Encode as _, Header, Key, Sign, Signed};
use hmac_signer::Hmac;
use http::{HeaderName, HeaderValue};
use standard_webhooks::StandardWebhooks;
use werkzeug_cookie::WerkzeugCookie;

/// First line: the config in JSON; the rest: the payload.
pub(crate) fn signers(data: &[u8]) {
    let mut parts = data.splitn(2, |byte| *byte == b'\n');
    let settings = std::str::from_utf8(parts.next().unwrap_or_default()).unwrap_or_default();
    let payload = parts.next().unwrap_or_default();
    sign::<WerkzeugCookie>(settings, payload);
    sign::<StandardWebhooks>(settings, payload);
    sign::<Hmac>(settings, payload);
    if let Ok(settings) = config::<Base64Envelope>(settings)
        && let Ok(encoded) = Base64Envelope::encode(&attempt(1, 0), &settings, request(payload))
    {
        check_headers(&encoded.headers);
        assert!(std::str::from_utf8(&encoded.body).is_ok(), "the envelope is a text");
    }
}

/// Signs with a key whose bytes must not be in the result, twice with the same result.
fn sign<P: Sign>(settings: &str, payload: &[u8]) {
    let Ok(settings) = config::<P>(settings) else { return };
    let key = StaticKey::new("k/1", *b"a secret of thirty-two bytes....");
    let keys: [&dyn Key; 1] = [&key];
    let signed = || P::sign(&attempt(1, 0), &settings, request(payload), &keys);
    let (Ok(first), Ok(second)) = (signed(), signed()) else { return };
    assert_eq!((shown(&first), &first.body), (shown(&second), &second.body), "the signature follows from the input");
    check_headers(&first.headers);
    let texts = first.headers.iter().map(|header| &header.value).chain(&first.body);
    for text in texts.filter(|_| !payload.windows(8).any(|part| part == b"a secret")) {
        assert!(!text.windows(8).any(|part| part == b"a secret"), "the key is in the result");
    }
}

fn shown(signed: &Signed) -> Vec<(&str, &[u8])> {
    signed.headers.iter().map(|header| (header.name.as_str(), header.value.as_slice())).collect()
}

/// Checks that headers can be sent.
fn check_headers(headers: &[Header]) {
    for header in headers {
        HeaderName::from_bytes(header.name.as_bytes()).expect("a header's name");
        HeaderValue::from_bytes(&header.value).expect("a header's value");
    }
}
