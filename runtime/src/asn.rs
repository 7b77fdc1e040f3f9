//! Autonomous system numbers: parsed from text, or derived from a server's IPv4 address.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use serde::Serialize;

/// A 16 or 32 bit ASN that a BGP speaker can use, which excludes the reserved ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct Asn(u32);

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum AsnError {
    #[error("{0:?} is not an ASN: an integer from 1 to 4294967294 is expected")]
    NotANumber(String),
    #[error("{0} is not a usable ASN: {1}")]
    Reserved(u32, &'static str),
}

impl Asn {
    /// The lowest ASN of a server, in the range for private use (RFC 6996).
    const SERVERS: u32 = 4_200_000_000;

    pub fn new(number: u32) -> Result<Self, AsnError> {
        let why = match number {
            0 => "0 is reserved (RFC 7607)",
            23456 => "23456 represents 32 bit ASNs to 16 bit speakers (RFC 6793)",
            65535 => "65535, the last 16 bit ASN, is reserved (RFC 7300)",
            u32::MAX => "4294967295, the last 32 bit ASN, is reserved (RFC 7300)",
            _ => return Ok(Self(number)),
        };
        Err(AsnError::Reserved(number, why))
    }

    /// 4200000000 + o2 × 65536 + o3 × 256 + o4. The first octet is not used, so 10.0.0.1 and 172.0.0.1 get the same ASN. The result
    /// is at most 4216777215 and never a reserved ASN.
    pub fn of_server(address: Ipv4Addr) -> Self {
        let [_, second, third, fourth] = address.octets();
        Self(Self::SERVERS + u32::from_be_bytes([0, second, third, fourth]))
    }

    pub fn number(self) -> u32 {
        self.0
    }
}

impl FromStr for Asn {
    type Err = AsnError;

    fn from_str(text: &str) -> Result<Self, AsnError> {
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        match text.parse() {
            Ok(number) if digits => Self::new(number),
            _ => Err(AsnError::NotANumber(text.into())),
        }
    }
}

impl fmt::Display for Asn {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_documented_examples() {
        for (address, asn) in [
            ([10, 0, 192, 111], 4_200_049_263),
            ([10, 0, 193, 111], 4_200_049_519),
            ([10, 1, 192, 111], 4_200_114_799),
            ([0, 0, 0, 0], 4_200_000_000),
            ([255, 255, 255, 255], 4_216_777_215),
        ] {
            assert_eq!(Asn::of_server(address.into()).number(), asn);
        }
    }

    #[test]
    fn the_first_octet_is_not_used() {
        assert_eq!(
            Asn::of_server([10, 0, 192, 1].into()),
            Asn::of_server([172, 0, 192, 1].into())
        );
    }

    #[test]
    fn unusable_numbers_are_rejected() {
        for text in ["0", "23456", "65535", "4294967295"] {
            assert!(matches!(text.parse::<Asn>(), Err(AsnError::Reserved(..))), "{text}");
        }
        for text in [
            "",
            " 1",
            "+1",
            "-1",
            "1.1",
            "0x1",
            "4294967296",
            "99999999999999999999",
            "AS65001",
            "٣",
        ] {
            assert!(matches!(text.parse::<Asn>(), Err(AsnError::NotANumber(_))), "{text}");
        }
    }

    proptest! {
        #[test]
        fn every_server_gets_a_usable_asn(octets: [u8; 4]) {
            let asn = Asn::of_server(octets.into());
            prop_assert_eq!(Asn::new(asn.number()), Ok(asn));
            let expected = 4_200_000_000 + u64::from(octets[1]) * 65536 + u64::from(octets[2]) * 256 + u64::from(octets[3]);
            prop_assert_eq!(u64::from(asn.number()), expected);
        }

        #[test]
        fn servers_of_the_same_slash_8_never_share_an_asn(a: [u8; 3], b: [u8; 3]) {
            let asn = |[x, y, z]: [u8; 3]| Asn::of_server([10, x, y, z].into());
            prop_assert_eq!(asn(a) == asn(b), a == b);
        }

        #[test]
        fn display_and_parse_round_trip(number in 1u32..u32::MAX) {
            prop_assume!(number != 23456 && number != 65535);
            let asn: Asn = number.to_string().parse().unwrap();
            prop_assert_eq!(asn.to_string(), number.to_string());
        }

        #[test]
        fn any_text_is_an_asn_or_an_error(text in ".{0,20}") {
            let _ = text.parse::<Asn>();
        }
    }
}
