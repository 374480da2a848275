//! Lists of rules that other operators give out.

use keyrink::decoders::rules;

/// Takes a list.
pub fn run(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let Some(written) = rules(text) else { return };
    assert_eq!(
        rules(&written).as_ref(),
        Some(&written),
        "what is written is read again"
    );
}

#[cfg(test)]
mod tests {
    #[test]
    fn lists_survive_anything() {
        let list = include_str!("rules.jsonl");
        assert!(keyrink::decoders::rules(list).is_some(), "the corpus is a list");
        crate::mutation::run(&[list.as_bytes().to_vec()], super::run);
    }
}
