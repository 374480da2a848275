//! Answers of peers to hashqueries: no more is taken than was sent, and a certificate at most as long as allowed.

use keyrink::decoders::hashquery_answer;

/// Takes the body of an answer.
pub fn run(input: &[u8]) {
    let (found, whole) = hashquery_answer(input, ASKED, CERTIFICATE_OCTETS_MAX);
    assert!(
        found
            .iter()
            .all(|octets| (1..=CERTIFICATE_OCTETS_MAX).contains(&(octets.len() as u64)))
    );
    assert!(found.iter().map(|octets| octets.len() + 4).sum::<usize>() + 4 <= input.len() || found.is_empty());
    if !whole {
        return;
    }
    let mut answer = (found.len() as u32).to_be_bytes().to_vec();
    for octets in &found {
        answer.extend((octets.len() as u32).to_be_bytes());
        answer.extend(octets);
    }
    assert_eq!(hashquery_answer(&answer, ASKED, CERTIFICATE_OCTETS_MAX), (found, true));
}

const ASKED: usize = 3;
const CERTIFICATE_OCTETS_MAX: u64 = 20;

#[cfg(test)]
mod tests {
    #[test]
    fn answers_survive_anything() {
        let string = |octets: &[u8]| [&(octets.len() as u32).to_be_bytes()[..], octets].concat();
        let corpus = [
            [&[0, 0, 0, 2][..], &string(b"one"), &string(b"two"), b"\r\n"].concat(),
            [&[0, 0, 0, 3][..], &string(&[7; 40]), &string(b""), &string(&[8; 20])].concat(),
            vec![0, 0, 0, 0],
            vec![0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff],
        ];
        crate::mutation::run(&corpus, super::run);
    }
}
