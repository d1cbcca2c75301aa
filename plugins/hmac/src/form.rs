//! Fields of a form (`application/x-www-form-urlencoded`), decoded as the URL standard says
//! (<https://url.spec.whatwg.org/#urlencoded-parsing>). Pure.

/// Type of a form's body.
pub const CONTENT_TYPE: &str = "application/x-www-form-urlencoded";

/// Returns the names and values of the fields without separators, in the order of the names; fields of one name in the order of their values,
/// each value once, as Twilio's libraries do.
pub fn sorted_fields(body: &[u8]) -> Vec<u8> {
    let mut fields: Vec<(Vec<u8>, Vec<u8>)> =
        body.split(|byte| *byte == b'&').filter(|field| !field.is_empty()).map(decoded_field).collect();
    fields.sort();
    fields.dedup();
    fields.into_iter().flat_map(|(name, value)| [name, value]).flatten().collect()
}

fn decoded_field(field: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let mut halves = field.splitn(2, |byte| *byte == b'=');
    let name = decoded(halves.next().unwrap_or_default());
    (name, decoded(halves.next().unwrap_or_default()))
}

fn decoded(text: &[u8]) -> Vec<u8> {
    let (mut decoded, mut rest) = (Vec::with_capacity(text.len()), text);
    while let [first, after @ ..] = rest {
        match (first, after) {
            (b'%', [high, low, after @ ..]) if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                decoded.push(digit(*high) << 4 | digit(*low));
                rest = after;
            }
            _ => {
                decoded.push(if *first == b'+' { b' ' } else { *first });
                rest = after;
            }
        }
    }
    decoded
}

/// Returns the value of a hexadecimal digit.
fn digit(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        _ => (digit | 0x20) - b'a' + 10,
    }
}

#[cfg(test)]
mod tests {
    use super::sorted_fields;

    #[test]
    fn fields_are_decoded_and_sorted() {
        assert_eq!(sorted_fields(b"b=2&a=x+y%2Bz&a=%C3%A9&&c&a=x+y%2Bz&d=%4"), "ax y+zaéb2cd%4".as_bytes());
        assert_eq!(sorted_fields(b""), b"");
    }
}
