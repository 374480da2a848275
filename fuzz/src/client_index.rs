//! Indexes of other keyservers: what is printed holds no character that steers a terminal.

use keyrink::decoders::index;

/// Takes the answer of a keyserver.
pub fn run(input: &[u8]) {
    let Some(printed) = index(input) else { return };
    let steers =
        |c: char| c.is_control() && c != '\n' || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    assert!(!printed.contains(steers), "{printed:?}");
}

#[cfg(test)]
mod tests {
    #[test]
    fn indexes_survive_anything() {
        let corpus = [
            "info:1:2\r\npub:80E976F14A508A48E9CA3FE9BC372252CA1CF964:1:4096:1388571010:1577836800:re\r\n\
             uid:A%3A%25 \u{e4} <a@b>:1388571010::\r\nuid:old:::r\r\npub:BC372252CA1CF964\nuid:x\nunknown:line\n",
            "info:1:1\npub:%1b[2J:22::18446744073709551615:253402300800:d\nuid:%07%E2%80%AEevil%0A%9b%FF\n",
        ];
        crate::mutation::run(&corpus.map(|text| text.as_bytes().to_vec()), super::run);
    }
}
