//! What somebody searches for: the store can look up whatever it means, and spaces around it or case do not change that.

use keyrink::decoders::search;
use keyrink_store::Term;

/// Takes two switches (exact, words) in one octet, then the text.
pub fn run(input: &[u8]) {
    let Some((switches, text)) = input.split_first() else {
        return;
    };
    let (exact, words) = (switches & 1 == 1, switches & 2 == 2);
    let found = search(text, exact, words);
    if let Some(terms) = &found {
        assert!(!terms.is_empty());
        let fit = |term: &Term| (1..=Term::OCTETS_MAX).contains(&term.text.len());
        assert!(terms.iter().all(fit), "{terms:?}");
    }
    assert_eq!(search(&[b" ", text, b"\n"].concat(), exact, words), found);
    // Where nothing but ASCII has a case, case says nothing.
    if text.is_ascii() {
        assert_eq!(search(&text.to_ascii_uppercase(), exact, words), found);
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn searches_survive_anything() {
        let fingerprint = "0123 4567 89AB CDEF 0123  4567 89ab cdef 0123 4567";
        let corpus = [
            fingerprint,
            &format!("0x{}", fingerprint.replace(' ', "")),
            &format!("openpgp4fpr:{fingerprint}"),
            "0X0123456789abcdef",
            "0xdeadbeef",
            &"ab".repeat(32),
            "=Alice (work) <alice@example.org>",
            "<alice@example.org>",
            "Alice B. Smith",
            "J\u{f6}rg \u{130}\u{1e9e}",
        ];
        let corpus: Vec<Vec<u8>> = (0..4)
            .flat_map(|switches| corpus.map(|text| [&[switches], text.as_bytes()].concat()))
            .collect();
        crate::mutation::run(&corpus, super::run);
    }
}
