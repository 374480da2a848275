//! Documents of a Hockeypuck database.

use keyrink::decoders::hockeypuck_document;

/// Takes the text of a document.
pub fn run(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    if let Some(packets) = hockeypuck_document(text) {
        assert!(packets.len() < text.len(), "base64 is longer than what it stands for");
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn documents_survive_anything() {
        let corpus = [
            r#"{"packet":{"tag":6,"data":"mAA="},"signatures":[{"packet":{"tag":2,"data":"iAA="}}],"userIDs":[{"packet":{"data":"tAFh"},"signatures":[]}],"subKeys":[{"packet":{"data":"uAA="}}],"others":[1,{"data":"AA=="}]}"#,
            r#"{"packet":{"tag":6},"trusts":[{}]}"#,
        ];
        crate::mutation::run(&corpus.map(|text| text.as_bytes().to_vec()), super::run);
    }
}
