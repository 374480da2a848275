//! The decoders of reconciliation: what is read is written back as it was.

use keyrink_recon::dataset::Dataset;
use keyrink_recon::wire::{Config, FrameReader, Message};

/// The first byte chooses the generation, the rest is a stream of frames.
pub fn run(input: &[u8]) {
    let Some((choice, stream)) = input.split_first() else {
        return;
    };
    match choice & 1 {
        0 => read(&Dataset::v1("v1"), stream),
        _ => read(&Dataset::v2("v2"), stream),
    }
    let mut reader = FrameReader::new(1 << 16);
    reader.feed(stream);
    if let Ok(Some(verdict)) = reader.next_verdict() {
        let mut again = Vec::new();
        verdict.encode(&mut again);
        let mut reader = FrameReader::new(1 << 16);
        reader.feed(&again);
        assert_eq!(reader.next_verdict(), Ok(Some(verdict)));
    }
}

fn read<const L: usize>(dataset: &Dataset<L>, mut stream: &[u8]) {
    let mut reader = FrameReader::new(dataset.conduct.message_max);
    reader.feed(stream);
    while let Ok(Some(frame)) = reader.next_frame() {
        let (bytes, rest) = stream.split_at(5 + frame.payload.len());
        stream = rest;
        if let Ok(message) = Message::decode(dataset, frame) {
            let again = encoded(|out| message.encode(dataset, out));
            let text = matches!(
                message,
                Message::Error(_) | Message::Historic(..) | Message::Refused(..)
            );
            // Texts may come back repaired, and a configuration is not looked into.
            assert!(text || message == Message::Config || again == bytes, "{message:?}");
        }
        if let Ok(config) = Config::decode(frame.payload) {
            let again = encoded(|out| config.encode(out));
            assert_eq!(again[5..], *frame.payload);
        }
    }
}

fn encoded(encode: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode(&mut bytes);
    bytes
}

/// Streams of real peers, behind each choice.
#[cfg(test)]
pub(crate) fn corpus(choices: std::ops::Range<u8>) -> Vec<Vec<u8>> {
    let streams: [&[u8]; 6] = [
        include_bytes!("../../crates/recon/tests/vectors/recon-v1/captures/04-hockeypuck-hockeypuck.acceptor.bin"),
        include_bytes!("../../crates/recon/tests/vectors/recon-v1/captures/04-hockeypuck-hockeypuck.initiator.bin"),
        include_bytes!("../../crates/recon/tests/vectors/recon-v1/captures/02-sks-sks-equal.acceptor.bin"),
        include_bytes!("../../crates/recon/tests/vectors/recon-v1/captures/08-tiny-sks.initiator.bin"),
        b"\0\0\0\x1a\x0b\0\0\0\x02\0\0\0\x01\x80\x01\0\0\0\x0bno interest\0\0\0\x01\x04\0\0\0\x01\x05",
        b"\0\0\0\x09\x02\0\0\0\0\0\0\0\x01\x06\0\0\0\x06\x07\0\0\0\x01x",
    ];
    // Behind the configurations and verdicts of those that have them, too.
    let behind = streams.iter().filter_map(|stream| {
        let at = stream.windows(10).position(|window| window == b"\0\0\0\x06passed")?;
        Some(&stream[at + 10..])
    });
    let all: Vec<&[u8]> = streams.iter().copied().chain(behind).collect();
    choices
        .flat_map(|choice| all.iter().map(move |stream| [&[choice][..], stream].concat()))
        .collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn decoders_survive_anything() {
        crate::mutation::run(&super::corpus(0..2), super::run);
    }
}
