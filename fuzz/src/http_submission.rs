//! Submissions: the key comes out of a form of any sort, and is never longer than what came in.

use keyrink::decoders::submission;

/// Takes one octet that chooses the content type, then the body.
pub fn run(input: &[u8]) {
    let Some((choice, body)) = input.split_first() else {
        return;
    };
    let content_type = TYPES[usize::from(*choice) % TYPES.len()];
    let keytext = submission(content_type, body);
    assert!(keytext.is_none_or(|keytext| keytext.len() <= body.len()));
}

const TYPES: [&str; 4] = [
    "multipart/form-data; boundary=x",
    "multipart/form-data; boundary=\"a b\"",
    "application/x-www-form-urlencoded",
    "application/pgp-keys",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn submissions_survive_anything() {
        let form = "--x\r\nContent-Disposition: form-data; name=\"options\"\r\n\r\nmr\r\n\
                    --x\r\nContent-Disposition: form-data; name=\"keytext\"\r\n\r\nkey\r\n\
                    --x\r\nContent-Disposition: form-data; name=\"keyfile\"; filename*=UTF-8''a%20b\r\n\
                    Content-Type: application/pgp-keys\r\n\r\n\x01\r\n--x--\r\n";
        let one = "--x\r\nContent-Disposition: form-data; name=\"keytext\"\r\n\r\nkey\r\n--x--\r\n";
        assert_eq!(submission(TYPES[0], one.as_bytes()).as_deref(), Some(&b"key"[..]));
        let bodies = [
            form,
            &form.replace("--x", "--a b"),
            "keytext=a%2Bb+c&options=json",
            "key",
        ];
        let corpus: Vec<Vec<u8>> = (0u8..)
            .zip(bodies)
            .map(|(choice, body)| [&[choice], body.as_bytes()].concat())
            .collect();
        crate::mutation::run(&corpus, super::run);
    }
}
