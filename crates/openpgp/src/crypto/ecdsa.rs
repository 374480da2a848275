//! ECDSA over the NIST curves, secp256k1 and the Brainpool curves (RFC 9580 §9.2), with any digest.

use super::aws_lc::{Curve, CurveKey, Integer, NamedCurve, Parameters};
use super::fields::Fields;
use super::{Check, KeyUnusable};

pub(super) struct Key(CurveKey);

impl Key {
    /// The point may be compressed, which no version of OpenPGP asks for and some keys are.
    pub(super) fn read(fields: &mut Fields) -> Result<Self, KeyUnusable> {
        let curve = curve(fields.object_identifier()?).ok_or(KeyUnusable::Unsupported)?;
        let point = fields.integer()?;
        CurveKey::new(&curve, point).map(Self).ok_or(KeyUnusable::Malformed)
    }

    pub(super) fn verify(&self, digest: &[u8], value: &mut Fields) -> Check {
        let (Ok(r), Ok(s)) = (value.integer(), value.integer()) else {
            return Check::Invalid;
        };
        self.0
            .verify(digest, Integer::from_octets(r), Integer::from_octets(s))
            .into()
    }
}

fn curve(object_identifier: &[u8]) -> Option<Curve> {
    Some(match object_identifier {
        b"\x2a\x86\x48\xce\x3d\x03\x01\x07" => Curve::Named(NamedCurve::P256),
        b"\x2b\x81\x04\x00\x22" => Curve::Named(NamedCurve::P384),
        b"\x2b\x81\x04\x00\x23" => Curve::Named(NamedCurve::P521),
        b"\x2b\x81\x04\x00\x0a" => Curve::Named(NamedCurve::Secp256k1),
        b"\x2b\x24\x03\x03\x02\x08\x01\x01\x07" => Curve::Explicit(&BRAINPOOL_P256R1),
        b"\x2b\x24\x03\x03\x02\x08\x01\x01\x0b" => Curve::Explicit(&BRAINPOOL_P384R1),
        b"\x2b\x24\x03\x03\x02\x08\x01\x01\x0d" => Curve::Explicit(&BRAINPOOL_P512R1),
        _ => return None,
    })
}

/// RFC 5639 §3.4.
const BRAINPOOL_P256R1: Parameters = Parameters {
    prime: &octets::<32>("a9fb57dba1eea9bc3e660a909d838d726e3bf623d52620282013481d1f6e5377"),
    a: &octets::<32>("7d5a0975fc2c3057eef67530417affe7fb8055c126dc5c6ce94a4b44f330b5d9"),
    b: &octets::<32>("26dc5c6ce94a4b44f330b5d9bbd77cbf958416295cf7e1ce6bccdc18ff8c07b6"),
    order: &octets::<32>("a9fb57dba1eea9bc3e660a909d838d718c397aa3b561a6f7901e0e82974856a7"),
    generator: &octets::<65>(
        "\
        048bd2aeb9cb7e57cb2c4b482ffc81b7afb9de27e1e3bd23c23a4453bd9ace3262547ef835c3dac4fd97f8461a14611d\
        c9c27745132ded8e545c1d54c72f046997",
    ),
};

/// RFC 5639 §3.6.
const BRAINPOOL_P384R1: Parameters = Parameters {
    prime: &octets::<48>(
        "8cb91e82a3386d280f5d6f7e50e641df152f7109ed5456b412b1da197fb71123acd3a729901d1a71874700133107ec53",
    ),
    a: &octets::<48>(
        "7bc382c63d8c150c3c72080ace05afa0c2bea28e4fb22787139165efba91f90f8aa5814a503ad4eb04a8c7dd22ce2826",
    ),
    b: &octets::<48>(
        "04a8c7dd22ce28268b39b55416f0447c2fb77de107dcd2a62e880ea53eeb62d57cb4390295dbc9943ab78696fa504c11",
    ),
    order: &octets::<48>(
        "8cb91e82a3386d280f5d6f7e50e641df152f7109ed5456b31f166e6cac0425a7cf3ab6af6b7fc3103b883202e9046565",
    ),
    generator: &octets::<97>(
        "\
        041d1c64f068cf45ffa2a63a81b7c13f6b8847a3e77ef14fe3db7fcafe0cbd10e8e826e03436d646aaef87b2e247d4af\
        1e8abe1d7520f9c2a45cb1eb8e95cfd55262b70b29feec5864e19c054ff99129280e4646217791811142820341263c53\
        15",
    ),
};

/// RFC 5639 §3.7.
const BRAINPOOL_P512R1: Parameters = Parameters {
    prime: &octets::<64>(
        "\
        aadd9db8dbe9c48b3fd4e6ae33c9fc07cb308db3b3c9d20ed6639cca703308717d4d9b009bc66842aecda12ae6a380e6\
        2881ff2f2d82c68528aa6056583a48f3",
    ),
    a: &octets::<64>(
        "\
        7830a3318b603b89e2327145ac234cc594cbdd8d3df91610a83441caea9863bc2ded5d5aa8253aa10a2ef1c98b9ac8b5\
        7f1117a72bf2c7b9e7c1ac4d77fc94ca",
    ),
    b: &octets::<64>(
        "\
        3df91610a83441caea9863bc2ded5d5aa8253aa10a2ef1c98b9ac8b57f1117a72bf2c7b9e7c1ac4d77fc94cadc083e67\
        984050b75ebae5dd2809bd638016f723",
    ),
    order: &octets::<64>(
        "\
        aadd9db8dbe9c48b3fd4e6ae33c9fc07cb308db3b3c9d20ed6639cca70330870553e5c414ca92619418661197fac1047\
        1db1d381085ddaddb58796829ca90069",
    ),
    generator: &octets::<129>(
        "\
        0481aee4bdd82ed9645a21322e9c4c6a9385ed9f70b5d916c1b43b62eef4d0098eff3b1f78e2d0d48d50d1687b93b97d\
        5f7c6d5047406a5e688b352209bcb9f8227dde385d566332ecc0eabfa9cf7822fdf209f70024a57b1aa000c55b881f81\
        11b2dcde494a5f485e5bca4bd88a2763aed1ca2b2fa8f0540678cd1e0f3ad80892",
    ),
};

/// The octets that the hexadecimal digits stand for.
const fn octets<const N: usize>(digits: &str) -> [u8; N] {
    const fn value(digit: u8) -> u8 {
        if digit.is_ascii_digit() {
            digit - b'0'
        } else {
            digit - b'a' + 10
        }
    }
    let digits = digits.as_bytes();
    assert!(digits.len() == 2 * N);
    let mut octets = [0; N];
    let mut index = 0;
    while index < N {
        octets[index] = 16 * value(digits[2 * index]) + value(digits[2 * index + 1]);
        index += 1;
    }
    octets
}
