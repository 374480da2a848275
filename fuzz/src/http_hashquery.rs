//! Questions of peers: what is read are digests, each once and no more than allowed.

use keyrink::decoders::hashquery;
use std::collections::BTreeSet;

/// Takes the body of a question.
pub fn run(input: &[u8]) {
    let Some(digests) = hashquery(input) else { return };
    assert!(digests.len() <= 1000 && digests.iter().all(|digest| digest.len() == 16));
    let distinct: BTreeSet<&Vec<u8>> = digests.iter().collect();
    assert_eq!(distinct.len(), digests.len());
    let mut question = (digests.len() as u32).to_be_bytes().to_vec();
    for digest in &digests {
        question.extend([0, 0, 0, 16]);
        question.extend(digest);
    }
    assert_eq!(hashquery(&question), Some(digests));
}

#[cfg(test)]
mod tests {
    #[test]
    fn questions_survive_anything() {
        let digest = |octet: u8| [&[0, 0, 0, 16][..], &[octet; 16]].concat();
        let corpus = [
            [&[0, 0, 0, 2][..], &digest(1), &digest(2)].concat(),
            [&[0, 0, 0, 3][..], &digest(1), &[0, 0, 0, 1, 9], &digest(1)].concat(),
            vec![0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff],
        ];
        crate::mutation::run(&corpus, super::run);
    }
}
