//! Saved sums of trees: what is read is written as it would be read again.

use keyrink::decoders::checkpoint;

/// Takes a checkpoint.
pub fn run(input: &[u8]) {
    let Some(written) = checkpoint(input) else { return };
    assert!(written.len() <= input.len());
    assert_eq!(checkpoint(&written).as_ref(), Some(&written));
}

#[cfg(test)]
mod tests {
    #[test]
    fn checkpoints_survive_anything() {
        let samples = [&[3; 16][..], &[0]].concat().repeat(6);
        let node = |children: u8, count: u64| [&[children][..], &count.to_be_bytes(), &samples].concat();
        let head = [1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 9];
        let corpus = [
            [&head[..], &node(0, 5)].concat(),
            [&head[..], &node(1, 10), &node(0, 1).repeat(2), &node(0, 4).repeat(2)].concat(),
            [&head[..], &node(1, 4).repeat(200)].concat(),
            [&head[..], &node(1, 1), &node(0, u64::MAX / 2).repeat(4)].concat(),
        ];
        assert!(super::checkpoint(&corpus[1]).is_some_and(|written| written == corpus[1]));
        crate::mutation::run(&corpus, super::run);
    }
}
