//! What proxies say about whom they ask for.

use keyrink::decoders::forwarded;

/// Takes one of the two headers, by its first octet.
pub fn run(input: &[u8]) {
    let Some((which, header)) = input.split_first() else {
        return;
    };
    let Some(client) = forwarded(header, which % 2 == 1) else {
        return;
    };
    assert_eq!(client, client.to_canonical(), "an address is one address");
}

#[cfg(test)]
mod tests {
    #[test]
    fn headers_survive_anything() {
        let corpus = [
            "\x00192.0.2.60, [2001:db8::1]:47011, 10.1.2.3:80",
            "\x00::ffff:192.0.2.7,10.2.3.4",
            "\x01for=192.0.2.60;proto=http, FOR=\"[2001:db8::1]:47011\";by=10.0.0.2, for=10.3.4.5",
            "\x01for=unknown, for=_hidden",
        ];
        crate::mutation::run(&corpus.map(|text| text.as_bytes().to_vec()), super::run);
    }
}
