//! Questions of peers: what is read are digests, no more than allowed and none longer than the question.

use keyrink::decoders::hashquery;

/// Takes the body of a question.
pub fn run(input: &[u8]) {
    let Some(digests) = hashquery(input) else { return };
    assert!(digests.len() <= 1000 && digests.iter().map(Vec::len).sum::<usize>() <= input.len());
    let mut question = (digests.len() as u32).to_be_bytes().to_vec();
    for digest in &digests {
        question.extend((digest.len() as u32).to_be_bytes());
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
