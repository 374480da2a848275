//! Armor: what decodes is encoded and decoded again, in one piece or in many.

use keyrink_openpgp::armor::{self, Decoder};

/// Takes text.
pub fn run(input: &[u8]) {
    let whole = armor::decode(input);
    let (mut decoder, mut pieces) = (Decoder::default(), Vec::new());
    let pushed = input.chunks(7).try_for_each(|piece| decoder.push(piece, &mut pieces));
    let joined = pushed.and_then(|()| decoder.finish(&mut pieces)).map(|()| pieces);
    // Lines that are too long may be noticed at different places.
    assert_eq!(joined.is_ok(), whole.is_ok());
    let Ok(octets) = whole else { return };
    assert_eq!(joined, Ok(octets.clone()));
    let mut text = Vec::new();
    armor::encode(armor::PUBLIC_KEY_BLOCK, &octets, &mut text);
    assert_eq!(armor::decode(&text), Ok(octets));
}

#[cfg(test)]
mod tests {
    use keyrink_openpgp::armor;

    #[test]
    fn armor_survives_anything() {
        let mut corpus = vec![b"-----BEGIN PGP PUBLIC KEY BLOCK-----\r\nComment: a\r\n\r\nAAAA\n=\n".to_vec()];
        for certificate in crate::certificates::certificates().iter().take(50) {
            let mut text = b"text around\n".to_vec();
            armor::encode(armor::PUBLIC_KEY_BLOCK, certificate, &mut text);
            corpus.push(text);
        }
        crate::mutation::run(&corpus, super::run);
    }
}
