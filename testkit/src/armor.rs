//! ASCII armor (RFC 9580 section 6), with the checksum that old servers insist on.

/// `octets` as an armored public key block.
pub fn armor(octets: &[u8]) -> String {
    let mut out = String::with_capacity(octets.len() * 7 / 5 + 128);
    out.push_str("-----BEGIN PGP PUBLIC KEY BLOCK-----\n\n");
    for line in octets.chunks(48) {
        put_base64(&mut out, line);
        out.push('\n');
    }
    out.push('=');
    put_base64(&mut out, &crc24(octets).to_be_bytes()[1..]);
    out.push_str("\n-----END PGP PUBLIC KEY BLOCK-----\n");
    out
}

/// The octets of the first armored block in `text`; empty if there is none.
pub fn dearmor(text: &str) -> Vec<u8> {
    let lines = text
        .lines()
        .map(str::trim_end)
        .skip_while(|line| !line.starts_with("-----BEGIN "));
    let body = lines
        .skip_while(|line| !line.is_empty())
        .take_while(|line| !line.starts_with(['=', '-']));
    base64_decode(&body.collect::<String>())
}

/// `text` percent-encoded as a field of an urlencoded form.
pub fn form_encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len() * 5 / 4);
    for octet in text.bytes() {
        match octet {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(char::from(octet)),
            _ => {
                out.push('%');
                out.push(char::from(HEX[usize::from(octet >> 4)]));
                out.push(char::from(HEX[usize::from(octet & 15)]));
            }
        }
    }
    out
}

/// `octets` as upper-case hexadecimal digits.
pub fn hex(octets: &[u8]) -> String {
    octets
        .iter()
        .flat_map(|octet| [octet >> 4, octet & 15])
        .map(|digit| char::from(HEX[usize::from(digit)]))
        .collect()
}

/// The octets of standard base64; anything else in `text` is skipped.
pub(crate) fn base64_decode(text: &str) -> Vec<u8> {
    let digits: Vec<u32> = text
        .bytes()
        .filter_map(|octet| BASE64.iter().position(|digit| *digit == octet))
        .map(|digit| digit as u32)
        .collect();
    let group = |digits: &[u32]| {
        let word = digits
            .iter()
            .enumerate()
            .fold(0, |word, (place, digit)| word | digit << (26 - 6 * place));
        word.to_be_bytes()
            .into_iter()
            .take(digits.len() * 6 / 8)
            .collect::<Vec<_>>()
    };
    digits.chunks(4).flat_map(group).collect()
}

fn put_base64(out: &mut String, octets: &[u8]) {
    for group in octets.chunks(3) {
        let word = group.iter().enumerate().fold(0_u32, |word, (place, octet)| {
            word | u32::from(*octet) << (16 - 8 * place)
        });
        for place in 0..4 {
            let digit = BASE64[(word >> (18 - 6 * place)) as usize & 63];
            out.push(if place <= group.len() { char::from(digit) } else { '=' });
        }
    }
}

fn crc24(octets: &[u8]) -> u32 {
    octets.iter().fold(0x00B7_04CE, |crc, octet| {
        (0..8).fold(crc ^ u32::from(*octet) << 16, |crc, _| {
            let shifted = crc << 1;
            if shifted & 0x0100_0000 == 0 {
                shifted
            } else {
                shifted ^ 0x0186_4CFB
            }
        })
    })
}

const HEX: &[u8; 16] = b"0123456789ABCDEF";
const BASE64: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_pads() {
        for (plain, coded) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
        ] {
            let mut out = String::new();
            put_base64(&mut out, plain.as_bytes());
            assert_eq!(out, coded);
            assert_eq!(base64_decode(coded), plain.as_bytes());
        }
    }

    #[test]
    fn armor_comes_off_again() {
        let octets: Vec<u8> = (0..=255).collect();
        assert_eq!(dearmor(&format!("Hello\n{}", armor(&octets))), octets);
    }

    #[test]
    fn forms_escape_what_base64_uses() {
        assert_eq!(form_encode("a+b/c=\n"), "a%2Bb%2Fc%3D%0A");
    }
}
