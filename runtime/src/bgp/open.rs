//! FRR's dump of the BGP OPEN message (RFC 4271, section 4.2) of a rejected session -> the ASN in it.

/// Marker, length and type.
const HEADER: usize = 19;
const OPEN: u8 = 1;
/// The optional parameter "capabilities" (RFC 5492) and the capability "four-octet AS number" (RFC 6793).
const CAPABILITIES: u8 = 2;
const FOUR_OCTET_AS: u8 = 65;

/// The ASN of the OPEN in FRR's `show bgp neighbors`, after "Message received that caused BGP to send a NOTIFICATION:".
pub fn asn(neighbor: &str) -> Option<u32> {
    let (_, dump) = neighbor.split_once("caused BGP to send a NOTIFICATION:")?;
    let mut digits = String::new();
    for line in dump.lines().skip(1) {
        let is_hex = |word: &str| word.bytes().all(|byte| byte.is_ascii_hexdigit());
        if line.trim().is_empty() || !line.split_whitespace().all(is_hex) {
            break;
        }
        digits.extend(line.split_whitespace());
    }
    let bytes: Option<Vec<u8>> = (0..digits.len() / 2)
        .map(|at| u8::from_str_radix(&digits[2 * at..2 * at + 2], 16).ok())
        .collect();
    from_message(&bytes?)
}

fn from_message(message: &[u8]) -> Option<u32> {
    let body = message.get(HEADER..)?;
    if message[HEADER - 1] != OPEN {
        return None;
    }
    // Version, two-octet ASN, hold time, identifier, length of the optional parameters.
    let asn = u32::from(u16::from_be_bytes([*body.get(1)?, *body.get(2)?]));
    let parameters = body.get(10..)?;
    let capabilities = fields(parameters).filter(|(kind, _)| *kind == CAPABILITIES);
    let four_octets = capabilities
        .flat_map(|(_, value)| fields(value))
        .find(|(kind, _)| *kind == FOUR_OCTET_AS);
    let four_octets = four_octets.and_then(|(_, value)| Some(u32::from_be_bytes(value.try_into().ok()?)));
    Some(four_octets.unwrap_or(asn))
}

/// Consecutive fields of kind, length and value. Ends at a truncated field.
fn fields(mut bytes: &[u8]) -> impl Iterator<Item = (u8, &[u8])> {
    std::iter::from_fn(move || {
        let (&kind, &length) = (bytes.first()?, bytes.get(1)?);
        let value = bytes.get(2..2 + usize::from(length))?;
        bytes = &bytes[2 + usize::from(length)..];
        Some((kind, value))
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Output of FRR 10.3.
    const SHOWN: &str = "  Last reset 00:00:06,  Notification sent (OPEN Message Error/Bad Peer AS)
  Message received that caused BGP to send a NOTIFICATION:
    FFFFFFFF FFFFFFFF FFFFFFFF FFFFFFFF
    00630104 5BA000B4 0AFF0101 46020601
    04000100 01020202 00020246 00020641
    04FA5711 0F020206 00020645 04000101
    0102074C 05000101 00000206 49040276
    6D000204 4002C078 02094707 00010180
    000000
  External BGP neighbor may be up to 1 hops away.
";

    #[test]
    fn the_asn_has_two_or_four_octets() {
        assert_eq!(asn(SHOWN), Some(4_200_009_999));
        // Without the capability the ASN has two octets.
        assert_eq!(asn(&SHOWN.replace("00020641", "000206FF")), Some(0x5BA0));
        for broken in [
            SHOWN.replace("00630104", "00630304"),
            SHOWN.replace("FFFFFFFF", "F"),
            String::new(),
        ] {
            assert_eq!(asn(&broken), None, "{broken}");
        }
    }

    proptest! {
        #[test]
        fn any_message_is_parsed_without_a_panic(message: Vec<u8>, text in r"[0-9A-Fa-fé \n]{0,80}") {
            let _ = from_message(&message);
            let _ = asn(&format!("caused BGP to send a NOTIFICATION:\n{text}"));
        }
    }
}
