//! Parameters of a request: every way of asking for one gives the same value, and lists and switches follow from it.

use keyrink::http::query::Query;

/// Takes the part of a URI behind the question mark.
pub fn run(input: &[u8]) {
    let query = Query::new(input);
    for name in ["op", "search", "options", "exact", ""] {
        let octets = query.octets(name);
        match query.text(name) {
            Ok(text) => assert_eq!(text.as_deref().map(str::as_bytes), octets.as_deref()),
            Err(_) => assert!(
                octets
                    .as_deref()
                    .is_some_and(|octets| std::str::from_utf8(octets).is_err())
            ),
        }
        assert!(octets.as_ref().is_none_or(|octets| octets.len() <= input.len()));
        assert!(octets.is_some() || !query.switch(name) && !query.lists(name, "mr"));
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn queries_survive_anything() {
        let corpus = [
            "op=get&search=A+b%20%3Ca%40b%2B%3E&options=mr,nm&exact=on",
            "op=index&options=json%2CMR&search=0x&exact=off&hash",
            "&&==&search&%6fp=%zz%4&search=%C3%A4%E4%00",
        ];
        crate::mutation::run(&corpus.map(|text| text.as_bytes().to_vec()), super::run);
    }
}
