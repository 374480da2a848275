//! A document of a Hockeypuck database: a certificate as JSON, back into packets.
//!
//! Every object that stands for a packet has `packet: {tag, data}`, in which `data` is the whole packet in base64. What belongs to
//! a packet stands in lists beside it: `trusts`, `signatures`, then those of a primary key, `userIDs` and `subKeys`. Documents
//! of older releases have lists of other names, also of packets without an object around them.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};

/// What a document holds.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Document {
    /// All packets, in the order of a certificate.
    pub(crate) packets: Vec<u8>,
    /// What holds no packet where one was expected, in words.
    pub(super) unread: Vec<String>,
}

/// Reads a document; the error says in words why it is none.
pub(crate) fn read(text: &str) -> Result<Document, String> {
    let value: Value = serde_json::from_str(text).map_err(|error| format!("its document is no JSON: {error}"))?;
    let object = value.as_object().ok_or("its document is no object")?;
    let mut document = Document::default();
    document.add(object, "")?;
    Ok(document)
}

/// Lists that come first and last; those of other names (such as user attributes) come between them.
const FIRST: [&str; 3] = ["trusts", "signatures", "userIDs"];
const LAST: [&str; 1] = ["subKeys"];

impl Document {
    /// Adds the packet of an object and those of its lists; `list` is where the object stands.
    fn add(&mut self, object: &Map<String, Value>, list: &str) -> Result<(), String> {
        let packet = match object.get("packet") {
            Some(Value::Object(packet)) => packet,
            _ => object,
        };
        match packet.get("data").and_then(Value::as_str) {
            Some(data) => {
                let packet = STANDARD.decode(data);
                self.packets
                    .extend(packet.map_err(|error| format!("a packet in its document is no base64: {error}"))?);
            }
            None => self
                .unread
                .push(format!("an object without a packet in its list {list:?}")),
        }
        let others = object.keys().map(String::as_str);
        let others = others.filter(|name| !FIRST.contains(name) && !LAST.contains(name));
        for name in FIRST.into_iter().chain(others).chain(LAST) {
            for item in object.get(name).and_then(Value::as_array).into_iter().flatten() {
                match item.as_object() {
                    Some(object) => self.add(object, name)?,
                    None => self
                        .unread
                        .push(format!("something else than a packet in its list {name:?}")),
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_come_in_the_order_of_a_certificate() {
        let text = r#"{"subKeys": [{"packet": {"tag": 14, "data": "Bw=="}, "signatures": [{"packet": {"tag": 2, "data": "CA=="}}]}],
            "userIDs": [{"packet": {"tag": 13, "data": "Aw=="}, "signatures": [
                {"trusts": [{"packet": {"tag": 12, "data": "BQ=="}}], "packet": {"tag": 2, "data": "BA=="}}]}],
            "packet": {"tag": 6, "data": "AQ==", "parsed": true}, "length": 7, "algorithm": {"name": "x", "data": "AA=="},
            "userAttrs": [{"packet": {"tag": 17, "data": "Bg=="}, "photos": [{"mime": "image/jpeg"}]}],
            "signatures": [{"packet": {"tag": 2, "data": "Ag=="}}], "trusts": null,
            "unsupported": [{"tag": 60, "data": "Bg=="}, 7]}"#;
        let document = read(text).unwrap();
        assert_eq!(document.packets, [1, 2, 3, 4, 5, 6, 6, 7, 8]);
        assert_eq!(document.unread.len(), 2, "{:?}", document.unread);
    }

    #[test]
    fn what_is_no_document_is_refused() {
        for text in ["", "[]", "{\"packet\": {\"data\": \"!\"}}"] {
            assert!(read(text).is_err(), "{text}");
        }
        assert!(read(&"[".repeat(100_000)).is_err());
    }
}
