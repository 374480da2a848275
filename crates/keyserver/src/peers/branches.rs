//! Parts of the tree of the second generation, as operators name them.
//!
//! The first two bits of an element say of which version a signature is, the next two what it is about. What a node does not
//! want to reconcile it says beforehand (it is *omitted*); what it does not want to answer it refuses when it is asked.

use keyrink_recon::element::Prefix;
use keyrink_recon::session::Omission;

/// A part of a tree that nobody could name so.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadBranch {
    /// Neither a word that is known nor some bits.
    #[error("{0:?} is no part: write v3, v4, v5, v6, user-attributes, or its first 2, 4, 6 or 8 bits")]
    Unknown(String),
    /// More than anybody may leave out.
    #[error("at most 64 parts can be left out")]
    TooMany,
    /// No even number of bits.
    #[error("{0:?} is no part: write an even number of bits, at most 64")]
    NoBits(String),
}

/// What is left out of sessions.
pub(crate) fn omission(names: &[String]) -> Result<Omission, BadBranch> {
    let mut branches = Vec::new();
    for name in names {
        let known = NAMES.iter().find(|(known, _)| known == name);
        let text = known.map_or(name.as_str(), |(_, branches)| branches);
        text.parse::<Omission>()
            .ok()
            .filter(|_| !text.is_empty())
            .ok_or_else(|| BadBranch::Unknown(name.clone()))?;
        branches.push(text);
    }
    branches.join(" ").parse().map_err(|_| BadBranch::TooMany)
}

/// Prefixes that are refused to partners and not asked for.
pub(crate) fn refused(names: &[String]) -> Result<Vec<String>, BadBranch> {
    let is_prefix = |name: &&String| name.parse::<Prefix<1>>().is_ok() && !name.is_empty();
    match names.iter().find(|name| !is_prefix(name)) {
        Some(name) => Err(BadBranch::NoBits(name.clone())),
        None => Ok(names.to_vec()),
    }
}

/// What stands for several parts, or is easier to remember than its bits.
const NAMES: [(&str, &str); 5] = [
    ("v3", "11"),
    ("v4", "00"),
    ("v5", "01"),
    ("v6", "10"),
    ("user-attributes", "0011 0111 1011 1111"),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn omitted(names: &[&str]) -> Result<String, BadBranch> {
        let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        omission(&names).map(|omission| omission.to_string())
    }

    #[test]
    fn parts_have_names_and_bits() {
        assert_eq!(
            omitted(&["v3", "user-attributes", "0001"]).unwrap(),
            "11 0011 0111 1011 1111 0001"
        );
        assert_eq!(omitted(&[]).unwrap(), "");
        for wrong in ["v7", "", "0", "0101010101"] {
            assert!(matches!(omitted(&[wrong]), Err(BadBranch::Unknown(_))), "{wrong:?}");
        }
        assert_eq!(omitted(&["01"; 65]), Err(BadBranch::TooMany));
        assert!(refused(&["0101010101".to_owned()]).is_ok());
        assert!(refused(&["1".to_owned()]).is_err() && refused(&[String::new()]).is_err());
    }
}
