//! Branches that a session leaves out.

use std::str::FromStr;

use crate::element::Prefix;

/// Bits of the longest branch that can be left out.
const BRANCH_BITS_MAX: usize = 8;

/// The most branches one side may leave out.
const BRANCHES_MAX: usize = 64;

/// Branches of a tree, each named by its first two to eight bits.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Omission {
    branches: Vec<Prefix<1>>,
}

/// A text that names no branches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("branches must be at most 64 prefixes of 2, 4, 6 or 8 bits, separated by one space")]
pub struct OmissionError;

impl Omission {
    /// Whether nothing is left out.
    pub fn is_empty(&self) -> bool {
        self.branches.is_empty()
    }

    /// What either of both leaves out.
    pub fn union(mut self, other: &Self) -> Self {
        self.branches.extend(&other.branches);
        self.branches.sort();
        self.branches.dedup();
        self
    }

    /// The prefixes a session starts with: the largest parts of the tree that hold nothing of what
    /// is left out. Above them samples mix what is compared with what is not.
    pub fn roots<const L: usize>(&self) -> Vec<Prefix<L>> {
        let mut roots = Vec::new();
        self.collect(Prefix::ROOT, &mut roots);
        let widen = |root: Prefix<1>| Prefix::from_bits(root.length(), &root.bytes());
        roots.into_iter().filter_map(widen).collect()
    }

    /// Adds the roots below a prefix; it ends at the longest branch.
    fn collect(&self, prefix: Prefix<1>, roots: &mut Vec<Prefix<1>>) {
        if self.branches.iter().any(|branch| prefix.is_within(branch)) {
            return;
        }
        match prefix.children() {
            Some(children) if self.branches.iter().any(|branch| branch.is_within(&prefix)) => {
                children.into_iter().for_each(|child| self.collect(child, roots));
            }
            _ => roots.push(prefix),
        }
    }
}

impl FromStr for Omission {
    type Err = OmissionError;

    fn from_str(text: &str) -> Result<Self, OmissionError> {
        if text.is_empty() {
            return Ok(Self::default());
        }
        let branches = text.split(' ').map(|branch| {
            let branch: Prefix<1> = branch.parse().map_err(|_| OmissionError)?;
            (1..=BRANCH_BITS_MAX)
                .contains(&branch.length())
                .then_some(branch)
                .ok_or(OmissionError)
        });
        let branches: Vec<_> = branches.take(BRANCHES_MAX + 1).collect::<Result<_, _>>()?;
        match branches.len() <= BRANCHES_MAX {
            true => Ok(Self { branches }),
            false => Err(OmissionError),
        }
    }
}

impl std::fmt::Display for Omission {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (index, branch) in self.branches.iter().enumerate() {
            write!(f, "{}{branch}", if index > 0 { " " } else { "" })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_short_prefixes_name_branches() {
        assert_eq!("01 0011".parse::<Omission>().unwrap().to_string(), "01 0011");
        assert!("".parse::<Omission>().unwrap().is_empty());
        for text in [" ", "0", "01  10", "0101010101", "2", "01 "] {
            assert_eq!(text.parse::<Omission>(), Err(OmissionError), "{text:?}");
        }
        assert!(["01"; 64].join(" ").parse::<Omission>().is_ok());
        assert!(["01"; 65].join(" ").parse::<Omission>().is_err());
    }
}
