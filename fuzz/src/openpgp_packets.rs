//! The framer: packets cover their input, and read back as they are written.

use keyrink_openpgp::packet::{self, FrameError, Frames};

/// Takes a keyring.
pub fn run(input: &[u8]) {
    let mut frames = Frames::new(input);
    let (mut covered, mut written, mut read) = (0, Vec::new(), Vec::new());
    for frame in frames.by_ref() {
        match frame {
            Ok(frame) => {
                assert_eq!(frame.span, &input[covered..covered + frame.span.len()]);
                assert!(frame.body.len() < frame.span.len());
                covered += frame.span.len();
                packet::write(&mut written, frame.tag, &frame.body);
                read.push((frame.tag, frame.body));
            }
            Err(FrameError::Truncated { needed }) => assert!(needed > input.len() - covered),
            Err(FrameError::NoPacket(first)) => assert_eq!((first & 0x80, first), (0, input[covered])),
        }
    }
    assert_eq!(frames.offset(), covered);
    let again: Vec<_> = Frames::new(&written)
        .map(|frame| frame.map(|frame| (frame.tag, frame.body)))
        .collect();
    assert_eq!(again, read.into_iter().map(Ok).collect::<Vec<_>>());
}

#[cfg(test)]
mod tests {
    #[test]
    fn framing_survives_anything() {
        crate::mutation::run(&crate::certificates::certificates(), super::run);
    }
}
